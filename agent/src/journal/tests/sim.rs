//! [`SimDisk`]: files in memory that forget, tear, reorder and fail as a disk does.

use super::super::storage::Storage;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

/// What is persisted by itself, whatever the order.
const SECTOR: usize = 64;

#[derive(Clone, Debug, Default)]
struct Node {
    content: Vec<u8>,
    /// What a sync has put on the disk.
    durable: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    /// Names a folder sync has put on the disk.
    durable_names: BTreeMap<String, usize>,
    n_operations: usize,
    die_at: Option<usize>,
    failing: Option<(usize, usize, io::ErrorKind)>,
    room: Option<usize>,
}

/// Clones share the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct SimDisk {
    state: Rc<RefCell<State>>,
}

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

impl SimDisk {
    pub(super) fn new() -> SimDisk {
        SimDisk::default()
    }

    pub(super) fn with(name: &str, content: &[u8]) -> SimDisk {
        SimDisk::new().replaced(name, content)
    }

    /// The power goes at this operation, counted from the first.
    pub(super) fn die_at(&self, operation: usize) {
        let mut state = self.state.borrow_mut();
        state.die_at = Some(state.n_operations + operation);
    }

    pub(super) fn is_dead(&self) -> bool {
        let state = self.state.borrow();
        state.die_at.is_some_and(|at| state.n_operations > at)
    }

    /// `n` operations from `operation` on fail.
    pub(super) fn fail_from(&self, operation: usize, n: usize, kind: io::ErrorKind) {
        self.state.borrow_mut().failing = Some((operation, operation + n, kind));
    }

    /// Bytes that may still be appended.
    pub(super) fn set_room(&self, room: Option<usize>) {
        self.state.borrow_mut().room = room;
    }

    pub(super) fn n_operations(&self) -> usize {
        self.state.borrow().n_operations
    }

    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state.borrow();
        state.nodes[state.names[name]].content.clone()
    }

    fn copy(&self) -> SimDisk {
        let state = self.state.borrow();
        let mut copy = State::default();
        for (name, node) in &state.names {
            let content = state.nodes[*node].content.clone();
            copy.add(name, content);
        }
        SimDisk {
            state: Rc::new(RefCell::new(copy)),
        }
    }

    pub(super) fn replaced(&self, name: &str, content: &[u8]) -> SimDisk {
        let copy = self.copy();
        copy.state.borrow_mut().add(name, content.to_vec());
        copy
    }

    pub(super) fn without(&self, name: &str) -> SimDisk {
        let copy = self.copy();
        copy.state.borrow_mut().names.remove(name);
        copy.state.borrow_mut().durable_names.remove(name);
        copy
    }

    /// What a disk may hold after the power went: of what was not synced, any sectors and any
    /// names.
    pub(super) fn after_power_cut(&self, seed: u64) -> SimDisk {
        let mut chance = Chance(seed);
        let state = self.state.borrow();
        let mut after = State::default();
        let mut names = state.durable_names.clone();
        for (name, node) in &state.names {
            if names.get(name) != Some(node) && chance.coin() {
                names.insert(name.clone(), *node);
            }
        }
        for name in state.durable_names.keys() {
            if !state.names.contains_key(name) && chance.coin() {
                names.remove(name);
            }
        }
        for (name, node) in names {
            let node = &state.nodes[node];
            after.add(&name, persisted(node, &mut chance));
        }
        SimDisk {
            state: Rc::new(RefCell::new(after)),
        }
    }

    fn operate<R>(&self, act: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        let mut state = self.state.borrow_mut();
        let at = state.n_operations;
        state.n_operations += 1;
        if state.die_at.is_some_and(|dead| at >= dead) {
            if state.die_at == Some(at) {
                // The operation the power goes in may be done in memory and on the way.
                let _ = act(&mut state);
            }
            return Err(io::Error::other("the power is off"));
        }
        if let Some((from, to, kind)) = state.failing
            && (from..to).contains(&at)
        {
            return Err(kind.into());
        }
        act(&mut state)
    }
}

/// Content and durable content share a begin; of the rest each sector is there or zero.
fn persisted(node: &Node, chance: &mut Chance) -> Vec<u8> {
    let n_kept = match chance.next() % 3 {
        0 => node.durable.len(),
        1 => node.content.len(),
        _ => {
            let span = node.content.len().abs_diff(node.durable.len()) as u64 + 1;
            node.content.len().min(node.durable.len()) + (chance.next() % span) as usize
        }
    };
    let mut bytes = node.durable.clone();
    bytes.resize(n_kept, 0);
    for begin in (0..n_kept).step_by(SECTOR) {
        let sector = begin..(begin + SECTOR).min(n_kept);
        let is_written = chance.coin();
        for at in sector {
            // Unsynced bytes may be there or not; synced ones are.
            let is_synced = node.durable.get(at) == node.content.get(at);
            if let Some(&byte) = node.content.get(at)
                && (is_written || is_synced)
            {
                bytes[at] = byte;
            }
        }
    }
    bytes
}

impl State {
    fn add(&mut self, name: &str, content: Vec<u8>) {
        self.nodes.push(Node {
            durable: content.clone(),
            content,
        });
        self.names.insert(name.to_owned(), self.nodes.len() - 1);
        self.durable_names
            .insert(name.to_owned(), self.nodes.len() - 1);
    }

    fn node(&mut self, name: &str) -> io::Result<&mut Node> {
        let node = *self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.nodes[node])
    }
}

impl Storage for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.borrow().names.keys().cloned().collect())
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.state.borrow_mut().node(name)?.content.len() as u64)
    }

    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut state = self.state.borrow_mut();
        let content = &state.node(name)?.content;
        Ok(content[..content.len().min(limit as usize)].to_vec())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.operate(|state| {
            if state.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.nodes.push(Node::default());
            state.names.insert(name.to_owned(), state.nodes.len() - 1);
            Ok(())
        })
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.operate(|state| {
            let n_taken = state.room.map_or(bytes.len(), |room| room.min(bytes.len()));
            if let Some(room) = &mut state.room {
                *room -= n_taken;
            }
            state.node(name)?.content.extend(&bytes[..n_taken]);
            match n_taken == bytes.len() {
                true => Ok(()),
                false => Err(io::ErrorKind::StorageFull.into()),
            }
        })
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let is_dying = {
            let state = self.state.borrow();
            state.die_at == Some(state.n_operations)
        };
        self.operate(|state| {
            let node = state.node(name)?;
            // A sync the power goes in has not put everything there.
            if !is_dying {
                node.durable.clone_from(&node.content);
            }
            Ok(())
        })
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.operate(|state| {
            state.durable_names = state.names.clone();
            Ok(())
        })
    }

    fn truncate(&mut self, name: &str, n_bytes: u64) -> io::Result<()> {
        self.operate(|state| {
            state.node(name)?.content.truncate(n_bytes as usize);
            Ok(())
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.operate(|state| {
            let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_owned(), node);
            Ok(())
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.operate(|state| {
            state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
            Ok(())
        })
    }
}
