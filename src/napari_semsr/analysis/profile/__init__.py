"""Line profiles: grey levels, and fits of lines, edges and pairs."""
