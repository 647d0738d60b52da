"""Where residuals come from: one file per kind of network, all behind the interface in `source`."""
