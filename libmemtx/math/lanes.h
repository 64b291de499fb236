/* A few rows against a few queries that stand anywhere: for rows that are met by other queries each time, where a matrix
 * product would first have to copy the queries together. */
#ifndef MEMTX_MATH_LANES_H
#define MEMTX_MATH_LANES_H

#include <stddef.h>

enum { MEMTX__LANES = 16, MEMTX__LANE_QUERIES = 6 };

/* columns[dim][MEMTX__LANES] of rows[MEMTX__LANES][dim]. */
void memtx__lanes_turn(float *columns, const float *rows, size_t dim);

/* scores[q][row] of all queries and rows; columns[dim][MEMTX__LANES] are the rows side by side. Each score is summed up
 * in the order of the columns, whatever the others are. */
void memtx__lanes_score(float scores[MEMTX__LANE_QUERIES][MEMTX__LANES], const float *columns,
                        const float *const queries[MEMTX__LANE_QUERIES], size_t dim);

/* Bit i: scores[i] is no less than `from`. */
unsigned memtx__lanes_from(const float scores[MEMTX__LANES], float from);

#endif
