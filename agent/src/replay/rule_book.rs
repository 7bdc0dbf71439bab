//! [`RuleBook`]: the rule files that a journal keeps.

use crate::entry::{Began, Entry, RulesPart};
use crate::inventory::board_lines;
use ocelli_boards::Board;
use ocelli_reflex::load::BoardLine;
use ocelli_reflex::{Inventory, Policy, load};
use std::collections::VecDeque;
use std::rc::Rc;

/// Rule files kept; the oldest is forgotten for a newer one.
const MAX_FILES: usize = 64;
/// Longest rule file plus the longest character.
const MAX_TEXT_BYTES: usize = ocelli_reflex::limit::MAX_FILE_BYTES + 4;

/// Why the rules of a step are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleFault {
    /// The journal does not hold the file.
    #[error("the journal holds no rule file {fingerprint:016x}")]
    Missing {
        /// Fingerprint asked for.
        fingerprint: u64,
    },
    /// The file is no longer accepted.
    #[error("this program refuses the rule file {fingerprint:016x} of the journal: {why}")]
    Refused {
        /// Fingerprint asked for.
        fingerprint: u64,
        /// Its mistakes.
        why: String,
    },
    /// The text is not the one the fingerprint was made of.
    #[error("the rule file that the journal calls {fingerprint:016x} is {found:016x}")]
    Other {
        /// Fingerprint asked for.
        fingerprint: u64,
        /// Fingerprint of the text.
        found: u64,
    },
}

#[derive(Debug)]
struct File {
    fingerprint: u64,
    text: String,
    policy: Option<Result<Rc<Policy>, RuleFault>>,
}

/// The rule files that a journal keeps, put together from their pieces and read when needed.
#[derive(Debug, Default)]
pub struct RuleBook {
    files: VecDeque<File>,
    /// Pieces so far of the file that is coming: fingerprint, next piece, pieces, text.
    coming: Option<(u64, u8, u8, String)>,
    /// Name of the board and its lines, in whose spelling outputs name lines.
    board: (String, Option<Vec<BoardLine>>),
    /// The run carries nothing out, whatever its files say.
    dry_run: bool,
}

impl RuleBook {
    /// An empty book.
    pub fn new() -> RuleBook {
        RuleBook::default()
    }

    /// Takes what concerns rules out of an entry.
    pub fn take(&mut self, entry: &Entry) {
        match entry {
            Entry::Rules(part) => self.add(part),
            Entry::Began(began) => self.began(began),
            _ => {}
        }
    }

    fn began(&mut self, began: &Began) {
        if (&self.board.0, self.dry_run) != (&began.board, began.dry_run) {
            let board = Board::by_name(&began.board).ok();
            self.board = (began.board.clone(), board.as_ref().map(board_lines));
            self.dry_run = began.dry_run;
            self.files.iter_mut().for_each(|file| file.policy = None);
        }
    }

    fn add(&mut self, part: &RulesPart) {
        let (mut next, mut text) = (0, String::new());
        if let Some((fingerprint, at, parts, before)) = self.coming.take()
            && part.part > 0
            && (fingerprint, at, parts) == (part.fingerprint, part.part, part.parts)
        {
            (next, text) = (at, before);
        }
        if part.part != next || text.len() + part.text.len() > MAX_TEXT_BYTES {
            return;
        }
        text.push_str(&part.text);
        if next.saturating_add(1) < part.parts {
            self.coming = Some((part.fingerprint, next + 1, part.parts, text));
            return;
        }
        self.files
            .retain(|file| file.fingerprint != part.fingerprint || file.text == text);
        let known = self
            .files
            .iter()
            .position(|file| file.fingerprint == part.fingerprint);
        // What was used last is forgotten last.
        let file = known.and_then(|at| self.files.remove(at));
        self.files.push_back(file.unwrap_or(File {
            fingerprint: part.fingerprint,
            text,
            policy: None,
        }));
        if self.files.len() > MAX_FILES {
            self.files.pop_front();
        }
    }

    /// The rules with a fingerprint.
    ///
    /// # Errors
    ///
    /// The journal does not hold them, or they cannot be used.
    pub fn policy(&mut self, fingerprint: u64) -> Result<Rc<Policy>, RuleFault> {
        let (lines, dry_run) = (&self.board.1, self.dry_run);
        let file = self
            .files
            .iter_mut()
            .find(|file| file.fingerprint == fingerprint)
            .ok_or(RuleFault::Missing { fingerprint })?;
        let read = file
            .policy
            .get_or_insert_with(|| read(fingerprint, &file.text, lines.clone(), dry_run));
        read.clone()
    }
}

fn read(
    fingerprint: u64,
    text: &str,
    lines: Option<Vec<BoardLine>>,
    dry_run: bool,
) -> Result<Rc<Policy>, RuleFault> {
    let on_board = Inventory {
        lines,
        serial: true,
        ..Inventory::default()
    };
    // The device may have known more lines than the board of that name has today.
    let anywhere = Inventory {
        serial: true,
        ..Inventory::default()
    };
    let policy = load(text, &on_board).or_else(|_| load(text, &anywhere));
    let mut policy = policy
        .map_err(|rejected| RuleFault::Refused {
            fingerprint,
            why: rejected.to_string(),
        })?
        .policy;
    policy.dry_run |= dry_run;
    match policy.fingerprint {
        found if found != fingerprint => Err(RuleFault::Other { fingerprint, found }),
        _ => Ok(Rc::new(policy)),
    }
}
