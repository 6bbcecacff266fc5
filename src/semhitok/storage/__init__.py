"""Files and bytes: atomic writes, byte ranges, the cache folder and what is fetched into it, arrays on disk."""
