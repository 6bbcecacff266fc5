"""What one does with a loaded model, in Python; the names that matter most are exported by ``semhitok``.

loading           a tokenizer or a language model by name, folder or hub id
reconstruction    images to token ids and back, in batches
token_files       ids on disk
code_patches      the patches that fall on a semantic code
conversation      questions about images that refer to earlier ones
answering         many questions or captions in batches
text_generation   what these two share
image_generator   images from prompts and seeds
"""

DEFAULT_TOKENIZER, DEFAULT_LANGUAGE_MODEL = "nano", "mllm_nano"
"""Names of the checkpoints that come with the package."""
