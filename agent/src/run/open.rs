//! From the configuration to everything the loop works with.

use super::agent::{NamedPins, Parts, Rules};
use super::clock::Clock;
use super::desk::broker::Broker;
use super::desk::line::Line;
use super::hands::Hands;
use super::lookout::Lookout;
use super::recorder::Recorder;
use super::settings::{Sections, Settings, Speech};
use super::vitals::Vitals;
use crate::cli::Global;
use crate::entry::ModelIdentity;
use crate::fault::{Fault, with_causes};
use crate::hook::Hooks;
use crate::inventory;
use crate::journal::Opened;
use crate::mind::{MindSettings, Thinker};
use crate::model;
use crate::notify::Notify;
use crate::page::Page;
use crate::progress::Progress;
use crate::remark::remark;
use crate::remote::{Remote, Spent};
use crate::threads::ThreadSettings;
use ocelli_boards::{
    Board, Facts, FakePins, GpioPins, PinId, PinPlan, PinRequest, PinUse, Pins, Tree, Watchdog,
    detect, plan,
};
use ocelli_reflex::load::BoardLine;
use ocelli_reflex::pin::Role;
use ocelli_reflex::question::Form;
use ocelli_reflex::{Inventory, Policy, load};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

/// When the loop stands still for this long, all pins go safe.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most questions that wait for the model.
const MAX_QUESTIONS: usize = 32;
/// The event queue inside the state folder.
const QUEUE: &str = "events.queue";
/// Measurements of threads inside it.
const THREADS: &str = "threads";

/// What the command line changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overrides {
    /// Nothing is carried out: pins are not opened, rules run dry.
    pub dry_run: bool,
}

/// The configuration and what follows from it without opening anything that is used exclusively.
pub struct Plan {
    /// The file.
    pub settings: Settings,
    /// The parts of it that cannot change while it is in use.
    pub sections: Sections,
    /// SHA-256 of its text.
    pub fingerprint: [u8; 32],
    /// The board.
    pub board: Board,
    /// The rules.
    pub rules: Rules,
    /// Pins of the board that the rules use.
    pub pins: Vec<PinPlan>,
}

impl Plan {
    /// Reads and checks configuration, board, rules and pins.
    ///
    /// # Errors
    ///
    /// The first file that cannot be used, with all its mistakes where it is the rule file.
    pub fn read(path: &Path, overrides: Overrides) -> Result<Plan, Fault> {
        let (settings, text) = Settings::read(path)?;
        let board = board(&settings.device.board)?;
        let rules = rules(&settings, &board, overrides.dry_run)?;
        let pins = pin_plans(&settings, &board, &rules.policy)?;
        for warning in warnings(&settings, &rules.policy) {
            remark!("ocelli: {}: {warning}", path.display());
        }
        Ok(Plan {
            settings,
            sections: Sections::of(&text),
            fingerprint: Sha256::digest(text.as_bytes()).into(),
            board,
            rules,
            pins,
        })
    }

    /// Opens the pins: real ones, or in a dry run such that only remember.
    ///
    /// # Errors
    ///
    /// A pin that is not there or is in use.
    pub fn open_pins(&self) -> Result<Option<Box<dyn Pins>>, Fault> {
        if self.pins.is_empty() {
            return Ok(None);
        }
        let plans = self.pins.clone();
        Ok(Some(match self.rules.policy.dry_run {
            true => Box::new(FakePins::new(plans)?.0),
            false => Box::new(GpioPins::open(&Tree::default(), plans)?),
        }))
    }

    /// Starts the thread of the pins, if there are any.
    ///
    /// # Errors
    ///
    /// As [`Plan::open_pins`].
    pub fn hands(&self, progress: &Arc<AtomicU64>) -> Result<Option<NamedPins>, Fault> {
        let Some(pins) = self.open_pins()? else {
            return Ok(None);
        };
        let names = self.pins.iter().enumerate();
        let names = names
            .map(|(at, plan)| (plan.name.clone(), PinId(at)))
            .collect();
        let hands = Hands::start(pins, Arc::clone(progress), PATIENCE)?;
        Ok(Some((hands, names)))
    }

    /// The camera, if there is one.
    ///
    /// # Errors
    ///
    /// Settings that cannot be used; a camera that is away is none.
    pub fn lookout(&self) -> Result<Option<Lookout>, Fault> {
        self.settings
            .camera
            .as_ref()
            .map(Lookout::start)
            .transpose()
    }

    /// The serial line, if there is one.
    pub fn line(&self, clock: &Clock) -> Option<Line> {
        let settings = self.settings.serial.as_ref()?;
        let name = &self.settings.device.name;
        Some(Line::new(
            settings,
            name,
            super::agent::random(),
            clock.monotonic(),
        ))
    }

    /// The remote model, if there is one.
    ///
    /// # Errors
    ///
    /// Settings that cannot be used.
    pub fn remote(&self, spent: Spent) -> Result<Option<Remote>, Fault> {
        let settings = self.settings.remote.as_ref();
        let remote = settings.map(|settings| Remote::start(settings, spent));
        let remote = remote.transpose();
        remote.map_err(|error| Fault::Argument(error.to_string()))
    }

    /// The page, if there is one.
    ///
    /// # Errors
    ///
    /// Settings that cannot be used, an address that is taken.
    pub fn page(&self) -> Result<Option<Page>, Fault> {
        let page = self.settings.http.as_ref().map(Page::start).transpose();
        page.map_err(|error| Fault::Argument(error.to_string()))
    }

    /// Opens everything. A model that cannot be used is no error: questions end `unsure`.
    ///
    /// # Errors
    ///
    /// What the owner has to mend before anything can run.
    pub fn open(self, global: &Global) -> Result<(Parts, Opened, Vec<String>), Fault> {
        let clock = Clock::new(self.settings.clock.trusted);
        let progress = Arc::new(AtomicU64::new(0));
        // Pins first: whatever is slow or fails later, they are safe.
        let hands = self.hands(&progress)?;
        let folder = self.settings.state_folder();
        let (recorder, opened) = Recorder::open(&self.settings, &folder, clock.clone())?;
        let mut remarks = Vec::new();
        let broker = match self.settings.mqtt.clone() {
            None => None,
            Some(settings) => {
                let seed = super::agent::random();
                let name = &self.settings.device.name;
                let queue = folder.join(QUEUE);
                let (broker, recovered) = Broker::start(settings, name, &queue, seed)?;
                if recovered.torn_bytes + recovered.damaged_bytes > 0 || recovered.dropped > 0 {
                    remarks.push(format!("event queue: {recovered:?}"));
                }
                Some(broker)
            }
        };
        let thinker = match self.thinker(global) {
            Ok(thinker) => Some(thinker),
            Err(fault) => {
                remarks.push(format!(
                    "the model cannot be used, questions end unsure: {}",
                    with_causes(&fault)
                ));
                None
            }
        };
        let watchdog = self.settings.watchdog.as_ref();
        let watchdog = watchdog.map(|settings| Watchdog::open(&Tree::default(), &settings.device));
        let watchdog = watchdog
            .transpose()
            .map_err(|error| Fault::Argument(error.to_string()))?;
        let notify =
            Notify::from_environment().map_err(|error| Fault::Argument(error.to_string()))?;
        let hooks = Hooks::start().map_err(|error| Fault::Argument(error.to_string()))?;
        let parts = Parts {
            lookout: self.lookout()?,
            line: self.line(&clock),
            remote: self.remote(recorder.read_spent())?,
            page: self.page()?,
            vitals: Vitals::new(Tree::default(), self.board.clone(), folder),
            notify,
            fingerprint: self.fingerprint,
            settings: self.settings,
            sections: self.sections,
            pins: self.pins,
            board: self.board,
            rules: self.rules,
            clock,
            recorder,
            thinker,
            hands,
            broker,
            hooks,
            watchdog,
            progress,
        };
        Ok((parts, opened, remarks))
    }

    /// Loads the model. The command line's `--model` and `--threads` go before the file's.
    fn thinker(&self, global: &Global) -> Result<(Thinker, ModelIdentity), Fault> {
        let mut global = global.clone();
        let settings = &self.settings.model;
        if global.model == model::DEFAULT
            && let Some(name) = &settings.name
        {
            global.model.clone_from(name);
        }
        global.threads = global.threads.or(settings.threads);
        let mut progress = Progress::new(&global);
        let threads = ThreadSettings {
            folder: Some(self.settings.state_folder().join(THREADS)),
            board: Some(self.board.clone()),
            hot_c: settings.hot_c,
        };
        let (vlm, _) = model::load_with(&global, &threads, &mut progress)?;
        let options = MindSettings {
            system: settings.system.clone(),
            ..MindSettings::default()
        };
        let identity = crate::mind::identity(&vlm);
        let thinker = Thinker::with_model(Arc::new(vlm), options, MAX_QUESTIONS)?;
        Ok((thinker, identity))
    }
}

/// The board of a name: detected, built in, or a definition of one's own.
fn board(name: &str) -> Result<Board, Fault> {
    if name == "auto" {
        let facts = Facts::read(&Tree::default(), SystemTime::now());
        return Ok(detect(&facts, &Board::built_in()).board);
    }
    inventory::board(name).map_err(|error| Fault::Argument(format!("device.board: {error}")))
}

/// Reads the rule file and holds it against what the device has.
fn rules(settings: &Settings, board: &Board, dry_run: bool) -> Result<Rules, Fault> {
    let path = &settings.rules;
    let text = inventory::read(path)?;
    let schemas = match &settings.schemas {
        None => Vec::new(),
        Some(folder) => inventory::schema_names(folder).map_err(|source| Fault::Input {
            path: folder.clone(),
            source,
        })?,
    };
    let lines: Vec<BoardLine> = inventory::board_lines(board);
    let serial = settings.serial.as_ref();
    let inventory = Inventory {
        zones: Some(settings.zone_names()),
        lines: Some(lines),
        schemas: Some(schemas),
        serial: serial.is_some_and(|serial| serial.speaks == Speech::Packets),
    };
    let loaded = load(&text, &inventory).map_err(|rejected| Fault::Rules {
        path: path.clone(),
        rejected,
    })?;
    for warning in &loaded.warnings {
        remark!("ocelli: {}: {warning}", path.display());
    }
    let mut policy = loaded.policy;
    wiring_is_known(settings, &policy)?;
    policy.dry_run |= dry_run;
    Ok(Rules {
        schemas: schemas_of(settings, &policy)?,
        policy,
        text,
    })
}

/// Texts of the schemas that the rules ask for.
fn schemas_of(settings: &Settings, policy: &Policy) -> Result<BTreeMap<String, String>, Fault> {
    let mut texts = BTreeMap::new();
    let Some(folder) = &settings.schemas else {
        return Ok(texts);
    };
    let forms = policy
        .rules
        .iter()
        .filter_map(|rule| Some(&rule.ask.as_ref()?.form));
    for form in forms {
        if let Form::Schema { schema } = form {
            let text = inventory::read(&folder.join(format!("{schema}.json")))?;
            texts.insert(schema.clone(), text);
        }
    }
    Ok(texts)
}

/// What the rules want and the configuration does not have.
fn warnings(settings: &Settings, policy: &Policy) -> Vec<String> {
    let needs = [
        (
            policy.topics.is_empty(),
            settings.mqtt.is_some(),
            "topics",
            "[mqtt]",
        ),
        (
            policy.packets.is_empty(),
            settings.serial.is_some(),
            "packets",
            "[serial]",
        ),
        (
            policy.remote.is_none(),
            settings.remote.is_some(),
            "second opinions",
            "[remote]",
        ),
    ];
    let missing = needs.iter().filter(|(none, has, ..)| !none && !has);
    missing
        .map(|(.., what, table)| {
            format!("the rules have {what} and there is no {table}; they fail")
        })
        .collect()
}

/// Rules of a text that is known to be right.
#[cfg(test)]
pub(super) fn rules_of(text: &str, inventory: &Inventory) -> Rules {
    let policy = load(text, inventory).unwrap().policy;
    Rules {
        policy,
        text: text.to_owned(),
        schemas: BTreeMap::new(),
    }
}

/// Pins that the configuration names must be in the rule file.
fn wiring_is_known(settings: &Settings, policy: &Policy) -> Result<(), Fault> {
    let buttons = settings.approval.iter();
    let buttons = buttons.flat_map(|buttons| std::iter::once(&buttons.yes).chain(&buttons.no));
    for name in settings.pins.keys().chain(buttons) {
        if !policy.pins.iter().any(|pin| pin.name.as_str() == name) {
            let known: Vec<&str> = policy.pins.iter().map(|pin| pin.name.as_str()).collect();
            return Err(Fault::Argument(format!(
                "pin `{name}` of the configuration is not in {}; pins there: {}",
                settings.rules.display(),
                known.join(", ")
            )));
        }
    }
    Ok(())
}

/// The board's pins that the rules use.
fn pin_plans(settings: &Settings, board: &Board, policy: &Policy) -> Result<Vec<PinPlan>, Fault> {
    let own = policy.pins.iter().filter(|pin| pin.serial_name().is_none());
    for pin in own.clone() {
        let range = pin.envelope().map_or((0, 1), |envelope| envelope.range);
        if range.0 < 0 || range.1 > 1 {
            return Err(Fault::Argument(format!(
                "pin `{}` of {}: line {} is on or off, and values = [{}, {}]; stay in [0, 1], or drive it by a microcontroller",
                pin.name,
                settings.rules.display(),
                pin.line,
                range.0,
                range.1
            )));
        }
    }
    let requests = own.map(|pin| {
        let wiring = settings
            .pins
            .get(pin.name.as_str())
            .copied()
            .unwrap_or_default();
        PinRequest {
            name: pin.name.to_string(),
            pin: pin.line.to_string(),
            usage: match &pin.role {
                Role::Input => PinUse::Input {
                    active_low: wiring.active_low,
                    bias: wiring.bias.into(),
                    edges: true,
                    debounce: Duration::from_millis(wiring.debounce_ms.into()),
                },
                Role::Output(envelope) => PinUse::Output {
                    active_low: wiring.active_low,
                    safe: envelope.safe != 0,
                },
            },
            insist: wiring.insist,
        }
    });
    let requests: Vec<PinRequest> = requests.collect();
    Ok(plan(board, &requests)?)
}
