"""The Python API of loaded models; its most important names are exported by ``semhitok``.

loading           a tokenizer or a language model by name, folder or hub id
reconstruction    images to token ids and back, in batches
token_files       ids on disk
image_codes       the codes of one image, changed and mixed
code_patches      the patches assigned to a semantic code
conversation      questions about images that refer to earlier ones
answering         many questions or captions in batches
text_generation   text generation for conversations and batches
image_generator   images from prompts and seeds
served_model      a model for a server: many conversations and images in one running batch
answer_text       the text of an answer while its ids arrive
"""

DEFAULT_TOKENIZER, DEFAULT_LANGUAGE_MODEL = "mini", "mllm_nano"
"""Names of the checkpoints that come with the package."""
