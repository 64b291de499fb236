/* Just enough of JSON to read the reference files: numbers, lists, objects; strings without escapes. A value is the
 * address of its first character in the file's text. */
#ifndef MEMTX_TESTS_JSON_H
#define MEMTX_TESTS_JSON_H

#include <stddef.h>

char *json_load(const char *path); /* the file's text, for free(); NULL when it cannot be read */

const char *json_find(const char *object, const char *key); /* or NULL */
const char *json_item(const char *list, size_t i);          /* or NULL past the end */
size_t json_count(const char *list);
double json_number(const char *object, const char *key); /* NaN where there is none */
int json_is(const char *object, const char *key, const char *text);

/* The list of numbers `key` of an object, in a new array for free(). */
double *json_numbers(size_t *n_out, const char *object, const char *key);

#endif
