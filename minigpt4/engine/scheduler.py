"""Continuous batching: requests join and leave the running batch between two tokens.

One thread does all the work of a model. Each round takes one piece of a prompt, of a bounded number of tokens, so that running
answers never wait for longer than that; then one token of every running answer. Answers to one prompt that are the same so far
share a row. Source: iteration-level scheduling (Yu et al. 2022, Orca).
"""

import atexit
import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Thread

import torch

from ..errors import UserError
from .backend import Backend, Block
from .beams import BeamSearch
from .completion import Completion, EngineFull, FinishReason, Piece, TokenLogprob
from .images import ImageCache, with_images
from .limits import Limits, Stats, out_of_memory
from .prefix import Prefix, PrefixCache
from .rows import Rows, block_of, prefix_of
from .running import Branch, Prefill, Row
from .sampling import behind_beams, next_tokens
from .scoring import candidate_logprobs
from .ticket import Ticket

log = logging.getLogger(__name__)


class Scheduler:
    """The queue, the running rows, and the thread that works on them.

    Args:
        library: answers tickets that need the library's own decoding (models whose cache is not plain), all of them to
            the end.
    """

    def __init__(
        self,
        backend: Backend,
        images: ImageCache,
        limits: Limits,
        end_ids: frozenset[int],
        library: Callable[[Sequence[Ticket]], None],
    ):
        self.backend, self.images, self.limits, self.end_ids, self._library = backend, images, limits, end_ids, library
        self.prefixes = PrefixCache(limits.prefix_bytes)
        self.stats = Stats()
        self._waiting: deque[Ticket] = deque()
        self._prefill: Prefill | None = None
        self._rows: list[Row] = []
        self._with_library: Sequence[Ticket] = ()
        self._cache = Rows(backend)
        self._wake = Condition()
        self._worker: Thread | None = None
        self._closed = False

    # from other threads ----------------------------------------------------------------------------------------------

    def submit(self, ticket: Ticket) -> None:
        """Put a ticket at the end of the queue.

        Raises:
            EngineFull: as many wait as may wait.
            UserError: the engine is closed.
        """
        with self._wake:
            if self._closed:
                raise UserError("the engine is closed")
            if len(self._waiting) >= self.limits.waiting:
                raise EngineFull(f"{len(self._waiting):,} requests are waiting already; try again later")
            self._waiting.append(ticket)
            self.stats.requests += 1
            if self._worker is None:
                self._worker = Thread(target=self._work, name="engine", daemon=True)
                self._worker.start()
                atexit.register(_close, weakref.ref(self))  # a thread inside torch must not outlive the interpreter
            self._wake.notify()

    def close(self) -> None:
        """Cancel everything and end the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
            for ticket in self._with_library:
                ticket.cancel()
        if self._worker is not None:
            self._worker.join()

    # the thread ------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        with torch.inference_mode():
            while True:
                with self._wake:
                    while not (self._closed or self._waiting or self._prefill or self._rows):
                        self._wake.wait()
                    if self._closed:
                        break
                try:
                    self._round()
                except Exception as error:  # a fault of ours or of the machine: nobody may wait for ever
                    log.exception("the engine failed; what was running is given up")
                    self._give_up(error)
            self._give_up(UserError("the engine is closed"))

    def _give_up(self, error: Exception) -> None:
        with self._wake:
            waiting, self._waiting = list(self._waiting) if self._closed else [], deque() if self._closed else self._waiting
        tickets = {id(t): t for t in [*waiting, *(row.ticket for row in self._rows)]}
        if self._prefill is not None:
            tickets[id(self._prefill.ticket)] = self._prefill.ticket
        self._rows, self._prefill, self._cache = [], None, Rows(self.backend)
        for ticket in tickets.values():
            ticket.fail(error)

    def _round(self) -> None:
        self._drop_cancelled()
        if self._prefill is not None:
            self._read_on(self._prefill)
        else:
            self._admit()
        if self._rows:
            try:
                logits = self._cache.step([row.ids[-1] for row in self._rows])
            except Exception as error:
                self._make_room(error)
                return
            self._take(list(range(len(self._rows))), logits)
        self.stats.running = sum(row.width for row in self._rows) + (self._prefill is not None)
        self.stats.waiting = len(self._waiting)

    def _make_room(self, error: Exception) -> None:
        """Memory ran out: the largest request gives up, the others go on."""
        reason = out_of_memory(error)
        if reason is error:
            raise error
        largest = max((row.ticket for row in self._rows), key=lambda ticket: ticket.most_tokens * ticket.rows)
        largest.fail(reason)
        for number in range(len(self._rows) - 1, -1, -1):
            if self._rows[number].ticket is largest:
                self._remove(number)

    def _drop_cancelled(self) -> None:
        for number in range(len(self._rows) - 1, -1, -1):
            row = self._rows[number]
            if row.ticket.cancelled:
                for branch in row.branches:
                    self._finish(branch, row.ids, "cancelled")
                if row.ticket.beams is not None and row.beam == 0:
                    self._finish_beams(row.ticket, row.ticket.beams)
                self._drop(number)
        if self._prefill is not None and self._prefill.ticket.cancelled:
            self._cancel(self._prefill.ticket)
            self._prefill = None
        with self._wake:
            gone = [ticket for ticket in self._waiting if ticket.cancelled]
            for ticket in gone:
                self._waiting.remove(ticket)
        for ticket in gone:
            self._cancel(ticket)

    def _cancel(self, ticket: Ticket) -> None:
        for index in range(ticket.answers):
            self._finish(Branch(ticket, index), [], "cancelled")

    # prompts ---------------------------------------------------------------------------------------------------------

    def _fits(self, ticket: Ticket, others: Sequence[Ticket]) -> bool:
        """Whether there is room for a ticket beside what runs and is about to run."""
        running = sum(row.width for row in self._rows) + (self._prefill.ticket.rows if self._prefill else 0)
        branches = running + sum(t.rows for t in others) + ticket.rows
        if branches == ticket.rows:  # alone: there is no better moment
            return True
        longest = max(t.most_tokens for t in (ticket, *others, *(row.ticket for row in self._rows)))
        return branches <= self.limits.rows and branches * longest <= self.limits.tokens

    def _admit(self) -> None:
        """Take from the queue what there is room for and what is read in one go."""
        with self._wake:
            if self._waiting and self._waiting[0].needs_library:
                group = [self._waiting.popleft()]
                while self._waiting and len(group) < 16 and self._waiting[0].goes_with(group[0]):
                    group.append(self._waiting.popleft())
            else:
                group = []
                while self._waiting and not self._waiting[0].needs_library and self._fits(self._waiting[0], group):
                    widest = max(len(t.ids) for t in (self._waiting[0], *group))
                    if group and widest * (len(group) + 1) > self.limits.prefill:
                        break
                    group.append(self._waiting.popleft())
        if not group:
            return
        try:
            seen = with_images(group, self.images)
            self.stats.images_encoded, self.stats.images_known = self.images.misses, self.images.hits
            self._start(seen)
        except Exception as error:
            for ticket in group:
                ticket.fail(out_of_memory(error))
            raise

    def _start(self, group: Sequence[Ticket]) -> None:
        """Answer, or begin to read."""
        if group and group[0].needs_library:
            with self._wake:
                self._with_library = group
                for ticket in group if self._closed else ():
                    ticket.cancel()
            try:
                self._library(group)
            finally:
                self._with_library = ()
            return
        fresh: list[tuple[Ticket, torch.Tensor]] = []
        for place, ticket in enumerate(group):
            embeds = self.backend.embed(ticket.ids, ticket.images)
            known, prefix = self.prefixes.longest(ticket.symbols)
            if prefix is None and len(ticket.ids) <= self.limits.prefill:
                fresh.append((ticket, embeds))
                continue
            if self._prefill is not None:  # one at a time: this one and what comes after it wait for the next round
                with self._wake:
                    self._waiting.extendleft(reversed(group[place:]))
                break
            ticket.cached_tokens = known
            self._prefill = Prefill(ticket, embeds, block_of(self.backend, prefix, len(ticket.ids)), known)
        if fresh:
            self._read(fresh)
        elif self._prefill is not None:
            self._read_on(self._prefill)

    def _read(self, group: Sequence[tuple[Ticket, torch.Tensor]]) -> None:
        """Whole prompts, side by side; padded on the right, where causal attention does not look."""
        begun, lengths = time.monotonic(), [len(embeds) for _, embeds in group]
        batch = group[0][1].new_zeros(len(group), max(lengths), group[0][1].shape[1])
        for row, (_, embeds) in enumerate(group):
            batch[row, : lengths[row]] = embeds
        try:
            block = self.backend.new_block(len(group), max(lengths))
            logits = self.backend.read(block, batch, 0, lengths)
        except Exception as error:
            if len(group) > 1:
                for one in group:
                    self._read([one])
            else:
                group[0][0].fail(out_of_memory(error))
            return
        seconds = time.monotonic() - begun
        self._begin([ticket for ticket, _ in group], block, lengths, logits, seconds)

    def _read_on(self, prefill: Prefill) -> None:
        """The next piece of a prompt that is long, or of which a part is known."""
        begun, ticket = time.monotonic(), prefill.ticket
        piece = prefill.embeds[prefill.done : prefill.done + self.limits.prefill]
        try:
            logits = self.backend.read(prefill.block, piece[None], prefill.done, [len(piece)])
        except Exception as error:
            self._prefill = None
            ticket.fail(out_of_memory(error))
            return
        prefill.done += len(piece)
        seconds = time.monotonic() - begun
        if prefill.done < len(ticket.ids):
            ticket.timings.prefill += seconds
            return
        self._prefill = None
        self._begin([ticket], prefill.block, [len(ticket.ids)], logits, seconds)

    def _begin(
        self, tickets: Sequence[Ticket], block: Block, lengths: Sequence[int], logits: torch.Tensor, seconds: float
    ) -> None:
        """Prompts have been read: their answers begin."""
        first, answered = len(self._rows), list[int]()
        for row, (ticket, length) in enumerate(zip(tickets, lengths, strict=True)):
            ticket.timings.prefill += seconds
            self.stats.prompt_tokens += length
            self.stats.cached_tokens += ticket.cached_tokens
            try:
                if ticket.candidates:
                    self._score(ticket, prefix_of(block, row, length), logits[row])
                    continue
                self._cache.add(block, row, length)
            except Exception as error:  # it is in no list yet: who waits for it would wait for ever
                ticket.fail(out_of_memory(error))
                continue
            answered.append(row)
            answers = range(0 if ticket.beams is not None else ticket.params.n)
            self._rows.append(Row(ticket, [Branch(ticket, index) for index in answers], []))
        if answered:
            self._take(list(range(first, len(self._rows))), logits[answered])

    def _score(self, ticket: Ticket, prefix: Prefix, logits: torch.Tensor) -> None:
        """A prompt has been read, with these logits (V) at its end: say how likely each of its candidates is."""
        if self.limits.prefix_bytes and not self.prefixes.covers(ticket.symbols):
            self.prefixes.keep(ticket.symbols, prefix)
        ticket.score(candidate_logprobs(self.backend, prefix, logits, ticket.candidates, self.limits.prefill))

    # answers ---------------------------------------------------------------------------------------------------------

    def _take(self, numbers: Sequence[int], logits: torch.Tensor) -> None:
        """Choose the next token of every answer in these rows by their logits (R, V); ended ones leave, parted ones part."""
        plain = [place for place, number in enumerate(numbers) if self._rows[number].ticket.beams is None]
        ended = self._take_beams([place for place in range(len(numbers)) if place not in plain], numbers, logits)
        rows = [self._rows[numbers[place]] for place in plain]
        chosen = next_tokens(
            logits if len(plain) == len(numbers) else logits[plain],
            [(row.ticket, row.ids, [branch.index for branch in row.branches]) for row in rows],
            self.end_ids,
        )
        for place, row, tokens in zip(plain, rows, chosen, strict=True):
            number, left = numbers[place], dict[int, list[Branch]]()
            for branch, (token, logprob) in zip(row.branches, tokens, strict=True):
                self.stats.generated_tokens += 1
                if not self._say(branch, [*row.ids, token], logprob):
                    left.setdefault(token, []).append(branch)
            if not left:
                row.branches = []
                ended.append(number)
                continue
            (token, row.branches), *parted = left.items()
            for other, branches in parted:
                self._cache.copy(number)
                self._rows.append(Row(row.ticket, branches, [*row.ids, other]))
            row.ids.append(token)
        for number in sorted(ended, reverse=True):
            self._drop(number)

    def _take_beams(self, places: Sequence[int], numbers: Sequence[int], logits: torch.Tensor) -> list[int]:
        """The same for rows that are beams, at these places of numbers and logits -> numbers of the rows to be dropped."""
        gone, searches = list[int](), dict[int, list[int]]()
        for place in places:
            searches.setdefault(id(self._rows[numbers[place]].ticket), []).append(place)
        for own in searches.values():
            own.sort(key=lambda place: self._rows[numbers[place]].beam)
            ticket, rows = self._rows[numbers[own[0]]].ticket, [numbers[place] for place in own]
            assert ticket.beams is not None
            if not ticket.timings.first_token:
                ticket.timings.first_token = time.monotonic() - ticket.since
            parents = ticket.beams.take(behind_beams(ticket.beams, logits[own]))
            if not parents:
                self._finish_beams(ticket, ticket.beams)
            free = [number for beam, number in enumerate(rows) if beam not in parents]
            taken: set[int] = set()
            for beam, parent in enumerate(parents):
                number = rows[parent]
                if number in taken and free:  # the first that goes on from a row stays in it
                    number = free.pop()
                    self._cache.replace(number, rows[parent], len(ticket.ids))
                elif number in taken:
                    number = self._cache.copy(number)
                    self._rows.append(Row(ticket, [], []))
                taken.add(number)
                self._rows[number].beam, self._rows[number].ids = beam, ticket.beams.ids[beam]
            for number in free if parents else ():
                self._rows[number].beam = -1  # none of them any more
            gone += free
        return gone

    def _say(self, branch: Branch, ids: list[int], logprob: TokenLogprob | None) -> bool:
        """Hand the newest of an answer's tokens on; whether the answer ends with it."""
        ticket = branch.ticket
        if len(ids) == 1 and not ticket.timings.first_token:
            ticket.timings.first_token = time.monotonic() - ticket.since
        if logprob is not None:
            branch.logprobs.append(logprob)
        text = "" if ids[-1] in self.end_ids else branch.stream.put(ids[-1:])
        branch.text += text
        reason: FinishReason | None = "stop" if ids[-1] in self.end_ids or branch.stream.ended else None
        if reason is None and len(ids) >= ticket.most_new_tokens:
            reason = "length"
        if reason is None:
            if text or logprob is not None:
                ticket.put(Piece(branch.index, text, () if logprob is None else (logprob,)))
            return False
        self._finish(branch, ids, reason, text, logprob)
        return True

    def _finish(
        self, branch: Branch, ids: list[int], reason: FinishReason, text: str = "", logprob: TokenLogprob | None = None
    ) -> None:
        ticket, rest = branch.ticket, branch.stream.end()
        ticket.timings.total = time.monotonic() - ticket.since
        self.stats.cancelled += reason == "cancelled"
        completion = Completion(
            text=branch.text + rest,
            token_ids=tuple(ids),
            finish_reason=reason,
            logprobs=None if ticket.params.logprobs is None else tuple(branch.logprobs),
            **ticket.counts(),
        )
        ticket.put(Piece(branch.index, text + rest, () if logprob is None else (logprob,), completion))

    def _finish_beams(self, ticket: Ticket, beams: BeamSearch) -> None:
        """Hand out the best answers of a search that is over, or was cancelled."""
        for index, ids in enumerate(beams.answers()):
            branch = Branch(ticket, index)
            branch.text = branch.stream.put([token for token in ids if token not in self.end_ids])
            self.stats.generated_tokens += len(ids)
            reason: FinishReason = "stop" if branch.stream.ended or ids[-1:] in ([end] for end in self.end_ids) else "length"
            self._finish(branch, ids, "cancelled" if ticket.cancelled else reason, branch.text)

    def _drop(self, number: int) -> None:
        """Let a row go, and keep what it has read (of beams, the first) for who comes with the same beginning."""
        row = self._rows[number]
        length = self._cache.lengths[number]
        symbols = row.ticket.symbols + tuple(row.ids)
        if row.beam == 0 and self.limits.prefix_bytes and not self.prefixes.covers(symbols[:length]):
            self.prefixes.keep(symbols[:length], self._cache.prefix(number, length))
        self._remove(number)

    def _remove(self, number: int) -> None:
        self._cache.drop(number)
        last = self._rows.pop()
        if number < len(self._rows):
            self._rows[number] = last


def _close(scheduler: "weakref.ref[Scheduler]") -> None:
    if (still := scheduler()) is not None:
        still.close()
