"""Nothing a member sends breaks a node: fuzz targets over decoding and over the engine."""
