/* The one alphabet of shapes in this code base. Arrays are row-major; the last letter is contiguous.
 *
 *   B  batch rows                       T  tokens of a segment
 *   C  channels of the residual stream  F  channels of the feed-forward layer
 *   H  query heads                      G  key/value heads (H is a multiple of G)
 *   D  size of a head                   S  rows of a cache: sinks, window, segment
 *   K  neighbours retrieved             M  recurrent memory rows
 *   W  window                           V  vocabulary
 *
 * Query head h uses kv head h / (H / G): the H / G heads of one kv head are neighbours, and are its *group*. */
#ifndef MEMTX_MATH_SHAPES_H
#define MEMTX_MATH_SHAPES_H

#include <stddef.h>

enum { MEMTX__MAX_HEAD_SIZE = 512 }; /* D: bounds small arrays on the stack */

#endif
