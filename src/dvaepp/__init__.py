"""Variational autoencoders with binary latent variables and Boltzmann-machine priors (DVAE++).

Everything public is a name of this module; `__init__.pyi` lists them. Each is loaded when it is first used, so that
`import dvaepp` is quick.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
