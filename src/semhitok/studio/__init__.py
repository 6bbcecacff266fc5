"""The studio: a page on which one sees what each token keeps; ``semhitok studio``.

workspace     loaded models, example images and results
html          pieces of the page: figures, sliders, grids of patches
reconstruct   originals and reconstructions, the two codes, the training stages
codes         one token: its patches, its sub-codebook, and what changing it does
draw, ask     images from prompts, answers about images
compare       results as a table and a picture
app           the Gradio page around all of these, with tabs and parts
serving       the page on an address of this machine

Only the last two, tabs and parts need Gradio. Models are reached through ``inference`` alone.
"""
