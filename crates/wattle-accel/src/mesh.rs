//! Time on the mesh: sources that wait until the slowest receiver has room, ports that serve one at a time.
//!
//! The routers are multiplexers set once a layer, with a ready/enable handshake (Chen et al. 2019, Sec. III): a
//! source may send when all receivers of its multicast group are ready. No packet is routed, so what matters of each
//! stream is when its items are sent and taken. Times are cycles since the start of a layer.

use std::collections::VecDeque;

/// A source that sends items in order to all receivers of its group; each receiver has a queue of a few items.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// When the last item had arrived everywhere.
    sent: u64,
    /// For each place in the queues, when the slowest receiver took the item that was in it; the oldest first.
    taken: VecDeque<u64>,
}

impl Source {
    /// A source whose receivers queue `depth` items, at least one.
    pub fn new(depth: usize) -> Source {
        Source { sent: 0, taken: std::iter::repeat_n(0, depth.max(1)).collect() }
    }

    /// When the next item could begin to leave: after the last one, and when every receiver has room for it.
    pub fn ready(&self) -> u64 {
        self.sent.max(self.taken[0])
    }

    /// Sends an item that holds the port for `cycles` and arrives no earlier than `not_before`. Returns its arrival.
    pub fn send(&mut self, cycles: u64, not_before: u64) -> u64 {
        self.sent = (self.ready() + cycles).max(not_before);
        self.sent
    }

    /// The slowest receiver takes the item that was sent last.
    pub fn take(&mut self, at: u64) {
        self.taken.pop_front();
        self.taken.push_back(at);
    }

    /// Nothing leaves before this.
    pub fn hold(&mut self, until: u64) {
        self.sent = self.sent.max(until);
    }
}

/// A port that serves one request after the other, and may be asked for a time before that of the last request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Port {
    /// Busy from and until, in order of time, none touching.
    busy: VecDeque<(u64, u64)>,
}

/// Busy times that a port remembers: what is longer ago no request reaches back to.
const REMEMBERED: usize = 256;

impl Port {
    /// Serves `cycles` of work from `ready` on, in the gaps that are left. Returns the end.
    pub fn serve(&mut self, ready: u64, cycles: u64) -> u64 {
        if cycles == 0 {
            return ready;
        }
        let first = self.busy.partition_point(|&(_, until)| until < ready);
        let (mut from, mut at, mut left) = (ready, ready, cycles);
        let mut place = first;
        // Work fills the gaps until it is done; what it touches becomes one busy time.
        while let Some(&(begin, until)) = self.busy.get(place) {
            let gap = begin.saturating_sub(at);
            if gap > left {
                break;
            }
            if gap == left {
                // It ends where the next busy time begins.
                self.busy.drain(first..=place);
                self.busy.insert(first, (from, until));
                return begin;
            }
            from = from.min(begin);
            left -= gap;
            at = at.max(until);
            place += 1;
        }
        let end = at + left;
        self.busy.drain(first..place);
        self.busy.insert(first, (from, end));
        if self.busy.len() > REMEMBERED {
            self.busy.pop_front();
        }
        end
    }

    /// When the last request was done.
    pub fn end(&self) -> u64 {
        self.busy.back().map_or(0, |b| b.1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_source_waits_until_the_slowest_receiver_has_room() {
        let mut source = Source::new(1);
        assert_eq!(source.send(4, 0), 4);
        source.take(10);
        // The queue of one item was free again at 10.
        assert_eq!(source.send(4, 0), 14);
        let mut deeper = Source::new(2);
        deeper.send(4, 0);
        deeper.take(10);
        assert_eq!(deeper.send(4, 0), 8);
        deeper.take(20);
        assert_eq!(deeper.send(4, 0), 14);
    }

    #[test]
    fn a_port_fills_gaps_before_later_work() {
        let mut port = Port::default();
        assert_eq!(port.serve(10, 5), 15);
        assert_eq!(port.serve(0, 4), 4);
        // Six cycles fit before 10, four of them are left there; the rest waits for the end of the first request.
        assert_eq!(port.serve(2, 8), 17);
        assert_eq!(port.busy, [(0, 17)]);
        assert_eq!(port.end(), 17);
    }

    proptest! {
        #[test]
        fn a_port_is_never_busy_twice_and_never_idles_while_work_waits(
            requests in proptest::collection::vec((0u64..60, 1u64..9), 1..20)
        ) {
            let mut port = Port::default();
            let mut cycles = vec![false; 400];
            for &(ready, work) in &requests {
                let mut left = work;
                let mut at = ready as usize;
                while left > 0 {
                    if !std::mem::replace(&mut cycles[at], true) {
                        left -= 1;
                    }
                    at += 1;
                }
                prop_assert_eq!(port.serve(ready, work), at as u64);
            }
        }
    }
}
