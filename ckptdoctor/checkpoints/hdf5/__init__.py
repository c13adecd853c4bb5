"""HDF5 metadata read in pure Python: what is stored where, without libhdf5.

Follows the HDF5 File Format Specification 3.0 for what Keras writes (superblocks 0, 2 and 3, both object headers, symbol
tables, link messages, contiguous and compact data) and says `Unsupported` for the rest, which a contained child reads.
"""

from ckptdoctor.checkpoints.hdf5.reader import read_tree
from ckptdoctor.checkpoints.hdf5.tree import H5Dataset, H5Group, H5Tree, Unsupported, find_signature

__all__ = ["H5Dataset", "H5Group", "H5Tree", "Unsupported", "find_signature", "read_tree"]
