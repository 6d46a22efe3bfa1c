"""Class maps of slides: from tiles to cells, areas, regions, agreement with another map or with the truth."""
