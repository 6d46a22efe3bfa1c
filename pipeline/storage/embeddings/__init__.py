"""Files of embeddings: read, write, shard, merge, export."""
