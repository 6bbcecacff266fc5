"""semhitok: unified image tokenizers. One set of discrete image tokens to understand and to generate images.

Importing the package registers its models with the Auto classes of transformers.
"""

from semhitok.tokenizers import SemHiTokConfig, SemHiTokImageProcessor, SemHiTokModel

__version__ = "0.1.0"

__all__ = ["SemHiTokConfig", "SemHiTokImageProcessor", "SemHiTokModel", "__version__"]
