//! The processes of a tree, found and read again through `/proc`.
//!
//! New members are found in two ways. *Walking* asks each member for its children (`/proc/<pid>/task/*/children`, proc(5)):
//! cheap for a small tree, but blind to a process whose parent ended before anybody looked. *Listing* all processes sees every
//! one and costs the most, so it is done seldom, and whenever the times must be exact.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::text_file::TextFile;

/// Listings after which processes known to be strangers are looked at again, should a number have been reused.
const STRANGERS_FORGOTTEN: u32 = 30;
/// Files kept open for members of the tree; a shell allows 1024 files in all.
const MOST_OPEN: usize = 128;
/// A listing takes at most one part in this many of one processor's time, a walk at most one in [`WALKING_SHARE`], but
/// neither is put off for longer than [`PUT_OFF`].
const LISTING_SHARE: u32 = 10_000;
const WALKING_SHARE: u32 = 1000;
/// The longest that a new process may go unseen.
const PUT_OFF: Duration = Duration::from_secs(5);

/// When a tree is looked at, and what is known by then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) at: Duration,
    /// Whether new processes must be found now, whatever that costs.
    pub(crate) exact: bool,
    /// Processes made since the machine started; `None` if unknown.
    pub(crate) forks: Option<u64>,
}

/// The processes of a tree. New ones are looked for only when the kernel has made some since; otherwise the members' own
/// files, which stay open, are read again.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Members seen alive last time, by process number.
    alive: HashMap<u32, Member>,
    /// Ticks of members that have ended, as last seen.
    ended: u64,
    /// Processes that do not belong, and the listing that last saw them.
    strangers: HashMap<u32, u32>,
    listings: u32,
    /// Processes made before the last listing, and before the last walk or listing; and when the next may be made.
    listed: Option<u64>,
    walked: Option<u64>,
    next_listing: Duration,
    next_walk: Duration,
    /// Whether processes have been made since that may belong to the tree.
    lagging: bool,
}

#[derive(Debug)]
struct Member {
    file: TextFile,
    started: u64,
    /// Own ticks at the first sight that counts, and last.
    first: u64,
    last: u64,
    /// Ticks of children that it waited for, as last seen.
    waited: u64,
}

impl Tree {
    /// Looks at the descendants of `root` that are alive; returns their ticks and those of the children they waited
    /// for.
    pub(crate) fn scan(&mut self, proc: &Path, root: u32, with_root: bool, look: Look) -> u64 {
        self.look_again();
        let new = |before: Option<u64>| look.forks.is_none() || look.forks != before;
        let begun = Instant::now();
        if new(self.listed) && (look.exact || (new(self.walked) && look.at >= self.next_listing)) {
            self.list(proc, root, with_root);
            (self.listed, self.walked) = (look.forks, look.forks);
            self.next_listing = look.at + (begun.elapsed() * LISTING_SHARE).min(PUT_OFF);
            self.lagging = false;
        } else if new(self.walked) && look.at >= self.next_walk && self.walk(proc, root) {
            self.walked = look.forks;
            self.next_walk = look.at + (begun.elapsed() * WALKING_SHARE).min(PUT_OFF);
            self.lagging = false;
        } else {
            self.lagging = new(self.walked);
        }
        let spent = |member: &Member| member.last.saturating_add(member.waited);
        self.alive.values().fold(0, |sum, member| sum.saturating_add(spent(member)))
    }

    /// Whether some processes may belong to the tree and have not been looked for yet.
    pub(crate) fn is_lagging(&self) -> bool {
        self.lagging
    }

    /// Asks the members for their children, and those for theirs; `false` where the kernel does not tell.
    fn walk(&mut self, proc: &Path, root: u32) -> bool {
        let mut parents: Vec<u32> = self.alive.keys().copied().chain([root]).collect();
        while let Some(parent) = parents.pop() {
            let Some(children) = children(proc, parent) else { return false };
            for pid in children {
                if self.alive.contains_key(&pid) {
                    continue;
                }
                let mut file = TextFile::new(proc.join(pid.to_string()).join("stat"));
                if let Some(Stat { spent, waited, started, .. }) = file.read().and_then(Stat::parse) {
                    self.alive.insert(pid, Member { file, started, first: 0, last: spent, waited });
                    parents.push(pid);
                }
            }
        }
        true
    }

    /// Reads the members again; those that are gone, or whose number another process has now, have ended.
    fn look_again(&mut self) {
        let mut open = 0;
        let ended = &mut self.ended;
        self.alive.retain(|_, member| {
            let stat = member.file.read().and_then(Stat::parse).filter(|s| s.started == member.started);
            let Some(stat) = stat else {
                *ended = ended.saturating_add(member.last.saturating_sub(member.first));
                return false;
            };
            (member.last, member.waited) = (stat.spent, stat.waited);
            open += 1;
            if open > MOST_OPEN {
                member.file.close();
            }
            true
        });
    }

    /// Lists all processes for new members. Once a member, always one, whoever becomes its parent.
    fn list(&mut self, proc: &Path, root: u32, with_root: bool) {
        self.listings = self.listings.wrapping_add(1);
        let now = self.listings;
        let forget = now.is_multiple_of(STRANGERS_FORGOTTEN);
        let mut new: HashMap<u32, (Stat, TextFile)> = HashMap::new();
        for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match self.strangers.get_mut(&pid) {
                Some(seen) if !forget => *seen = now,
                _ if self.alive.contains_key(&pid) => {}
                _ => {
                    let mut file = TextFile::new(entry.path().join("stat"));
                    if let Some(stat) = file.read().and_then(Stat::parse) {
                        new.insert(pid, (stat, file));
                    }
                }
            }
        }
        self.strangers.retain(|_, seen| *seen == now);
        let belongs = |pid: u32, stat: &Stat| {
            if pid == root { with_root } else { descends(&new, &self.alive, stat, root) }
        };
        let members: Vec<u32> =
            new.iter().filter(|(pid, (s, _))| belongs(**pid, s)).map(|(p, _)| *p).collect();
        for pid in members {
            if let Some((stat, file)) = new.remove(&pid) {
                let Stat { spent, waited, started, .. } = stat;
                self.alive.insert(pid, Member { file, started, first: 0, last: spent, waited });
            }
        }
        self.strangers.extend(new.into_keys().filter(|pid| *pid != root).map(|pid| (pid, now)));
    }

    #[cfg(test)]
    pub(crate) fn put_listing_off(&mut self) {
        self.next_listing = PUT_OFF;
    }

    /// What the members have spent so far does not count.
    pub(crate) fn forget_past(&mut self) {
        for member in self.alive.values_mut() {
            member.first = member.last;
        }
    }

    /// Ticks of all members there ever were, each as last seen.
    pub(crate) fn seen(&self) -> u64 {
        let own = |member: &Member| member.last.saturating_sub(member.first);
        self.alive.values().fold(self.ended, |sum, member| sum.saturating_add(own(member)))
    }
}

/// The children of all threads of a process; none if it has ended, `None` where the kernel does not tell.
fn children(proc: &Path, parent: u32) -> Option<Vec<u32>> {
    let mut found = vec![];
    let folder = proc.join(parent.to_string());
    let Ok(threads) = fs::read_dir(folder.join("task")) else { return (!folder.exists()).then_some(found) };
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok())),
            // The thread has ended, or there is no such file.
            Err(_) if !thread.path().exists() => {}
            Err(_) => return None,
        }
    }
    Some(found)
}

/// Whether the chain of parents leads to `root` or a member; a chain longer than any real one is a torn listing.
fn descends(
    new: &HashMap<u32, (Stat, TextFile)>,
    members: &HashMap<u32, Member>,
    of: &Stat,
    root: u32,
) -> bool {
    let mut parent = of.parent;
    for _ in 0..4096 {
        if parent == root || members.contains_key(&parent) {
            return true;
        }
        match new.get(&parent) {
            Some((next, _)) => parent = next.parent,
            None => return false,
        }
    }
    false
}

/// What `/proc/<pid>/stat` says, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: u32,
    parent: u32,
    /// User and system time of all its threads.
    pub(crate) spent: u64,
    /// The same of children that ended and were waited for, and of theirs.
    pub(crate) waited: u64,
    started: u64,
}

impl Stat {
    /// Fields 1, 4, 14 to 17 and 22 of proc(5). The name in field 2 may hold spaces and brackets.
    pub(crate) fn parse(stat: &str) -> Option<Stat> {
        let pid = stat.split_ascii_whitespace().next()?.parse().ok()?;
        // The first field after the name is number 3.
        let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
        let mut number = |skipped: usize| fields.nth(skipped)?.parse::<u64>().ok();
        let parent = u32::try_from(number(1)?).ok()?;
        let spent = number(9)?.checked_add(number(0)?)?;
        let waited = number(0)?.checked_add(number(0)?)?;
        Some(Stat { pid, parent, spent, waited, started: number(4)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_shift_the_fields() {
        let stat =
            Stat::parse("7 (a) R 1 (b) S 9 1 1 0 -1 4194304 900 0 0 0 150 50 7 3 20 0 4 0 100").unwrap();
        assert_eq!(stat, Stat { pid: 7, parent: 9, spent: 200, waited: 10, started: 100 });
    }
}
