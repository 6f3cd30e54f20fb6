"""Decoded chunks of frames, as many as fit a given number of bytes, and windows copied out of them."""

from collections import OrderedDict

from forcing.datasets.stored_frames import StoredFrames
from forcing.policy.types import Array, Index


class ChunkCache:
    """The chunks of one camera that were used last. One thread at a time."""

    def __init__(self, frames: StoredFrames, budget_bytes: int) -> None:
        """budget_bytes: of decoded chunks; at least one is kept."""
        self.frames = frames
        chunk_bytes = frames.new_chunks(1).nbytes
        slots = min(max(budget_bytes // chunk_bytes, 1), frames.chunks)
        self._memory = frames.new_chunks(slots)
        self._free = list(range(slots))
        self._slots: OrderedDict[int, int] = OrderedDict()  # chunk -> slot, the least recently used first
        self.decoded = 0  # chunks, ever

    def gather(self, first: Index, repeated: Index, out: Array) -> None:
        """Writes windows to `out`, [B, T, *shape of a frame].

        first: [B] row of the first frame of each. repeated: [B] how often it is shown before the others, below T.
        Raises StoreError if a frame cannot be read.
        """
        rows, length = self.frames.chunk_rows, out.shape[1]
        starts, before = first.tolist(), repeated.tolist()
        for index in first.argsort(kind="stable").tolist():  # neighbours need the same chunks
            window, row, place = out[index], starts[index], before[index]
            while place < length:
                chunk, offset = divmod(row, rows)
                count = min(rows - offset, length - place)
                window[place : place + count] = self._chunk(chunk)[offset : offset + count]
                row, place = row + count, place + count
            if before[index]:
                window[: before[index]] = window[before[index]]

    def _chunk(self, chunk: int) -> Array:
        if chunk in self._slots:
            self._slots.move_to_end(chunk)
        else:
            if not self._free:
                self._free.append(self._slots.popitem(last=False)[1])
            self.frames.decode(chunk, self._memory[self._free[-1]])
            self.decoded += 1
            self._slots[chunk] = self._free.pop()
        found: Array = self._memory[self._slots[chunk]]
        return found
