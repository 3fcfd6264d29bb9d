"""From a file to the items of a network.

source.py     a file, packed or not          fasta.py, tables.py, labels.py   what is in it, told by the line
encoding.py   letters to tokens              index.py, store.py               read once, kept beside the file
masking.py    masks and crops                packing.py, rows.py              rows of one protein or of many
locations.py  the sample in this package
"""
