# Recall against speed, a panel for each set of rows, a curve for each family; bench/index_sweep.py sets
#   out       the SVG          panels, names   words: data files and what they are of      rows   for the title
#   n         families: blocks of each file, the same in all, whose first line is the family's name
set terminal svg size 1000,900 font "sans,12" background "white"
set output out
set multiplot layout (words(panels) + 1) / 2,words(panels) > 1 ? 2 : 1 margins 0.08,0.98,0.16,0.92 spacing 0.1,0.12 \
    title rows . " rows: recall against speed"
set logscale x
set format x "10^{%T}"
set xlabel "queries/s, 1,536 at once"
set ylabel "recall of the 32 best"
set yrange [0:1.03]
set grid
set key at screen 0.5,0.05 center center maxrows 2 samplen 2
do for [p = 1:words(panels)] {
    set title word(names, p)
    plot for [i = 0:n - 1] word(panels, p) index i using 1:2 with linespoints linetype i + 1 pointtype i + 4 \
        title columnheader(1)
    unset key
}
unset multiplot
