"""Two images brought to one area and grid."""
