"""Jobs that measure: resolution, spectra, grey levels, gaps."""
