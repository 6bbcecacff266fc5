"""Files and bytes: atomic writing, the cache and what is fetched into it, arrays on disk."""
