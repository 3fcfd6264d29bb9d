"""The data room: what an item is (`item`), where items come from (`dataset`), in which order (`resampling`).

Nothing is re-exported here, so that the floor can import `data.item` without loading torch.
"""
