"""What a tile is: data sets, decoding, audit, split, manifest."""
