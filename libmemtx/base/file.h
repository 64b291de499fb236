/* Files read as a map, and files written whole or not at all. */
#ifndef MEMTX_BASE_FILE_H
#define MEMTX_BASE_FILE_H

#include <stddef.h>

struct memtx__map {
    const unsigned char *bytes; /* NULL for an empty file */
    size_t n_bytes;
};

/* Maps a regular file for reading. MEMTX_E_NOT_FOUND, MEMTX_E_IO (not a regular file, no permission ..). */
int memtx__map_open(struct memtx__map *out, const char *path);
void memtx__map_close(struct memtx__map *map);

/* Writes a file so that it is there whole or not at all: temporary name, fsync, rename, fsync of the directory.
 * Permissions 0600. MEMTX_E_NO_SPACE, MEMTX_E_IO. */
int memtx__write_file(const char *path, const void *bytes, size_t n_bytes);

/* fsync of the directory that holds `path`, so that a rename to it is on disk. MEMTX_E_IO. */
int memtx__sync_directory(const char *path);

/* The code for an errno of a file operation: MEMTX_E_NO_SPACE, MEMTX_E_NOT_FOUND or MEMTX_E_IO. */
int memtx__errno_status(int error);

#endif
