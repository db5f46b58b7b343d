"""Getting the model to the workers: what they need, built and described; no Beam in here.

================== =============================================================================
:mod:`.items`      what travels: the list and its kinds of items
:mod:`.installed`  the distributions of this environment: where each came from, what it requires
:mod:`.modules`    modules that no distribution owns: where they are, what they import
:mod:`.listing`    ``package_list``: from ``--model`` to the list
:mod:`.wheels`     wheels written by our own code, the same input giving the same bytes
:mod:`.build`      ``build``: the list as files, with a cache
:mod:`.flags`      ``beam_flags``: what Beam is told, so that workers install it
:mod:`.image`      the Dockerfile of a worker image with the same contents
:mod:`.clean`      ``clean_import``: the model, imported with nothing else around
================== =============================================================================
"""
