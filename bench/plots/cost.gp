# Cost against rows, a line for each family that reaches the recall; bench/index_sweep.py sets
#   out   the SVG     data   its file: blocks whose first line is the family's name     n   how many     name   of what
#   tics, low, high   the numbers of rows, with commas between, and the range that is shown
set terminal svg size 900,600 font "sans,12" background "white"
set output out
set title "The fastest setting of each family with a recall of 0.95 or more (" . name . ")"
set logscale xy
set xlabel "rows"
set ylabel "ms for 1,536 queries at once"
eval "set xtics (" . tics . ")"
set xrange [low:high]
set grid
set format y "%.0f"
set key outside right center samplen 2
plot for [i = 0:n - 1] data index i using 1:2 with linespoints linetype i + 1 pointtype i + 4 title columnheader(1)
