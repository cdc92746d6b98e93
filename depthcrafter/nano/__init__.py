"""nano: a DepthCrafter of 2.6 million parameters, trained by this project on procedural scenes."""
