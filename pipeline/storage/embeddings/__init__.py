"""Read, write, shard, merge and export embeddings."""
