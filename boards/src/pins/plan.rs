//! From what is wanted to lines of a chip.

use std::time::Duration;

use super::{PinError, PinPlan, PinRequest, PinUse};
use crate::board::Board;
use crate::board::schema::PinDefinition;

/// Most pins of a program.
const MAX_PINS: usize = 64;
/// Longest debounce time.
const MAX_DEBOUNCE: Duration = Duration::from_secs(10);

/// The plans that meet `requests` on `board`, in the same order.
///
/// # Errors
/// [`PinError`] if a pin is unknown, reserved, wanted twice, or a number is out of its limits.
pub fn plan(board: &Board, requests: &[PinRequest]) -> Result<Vec<PinPlan>, PinError> {
    if requests.len() > MAX_PINS {
        let (what, value) = ("the number of pins".to_owned(), requests.len().to_string());
        return Err(PinError::Limit {
            what,
            value,
            limit: "64",
        });
    }
    let mut plans: Vec<PinPlan> = Vec::with_capacity(requests.len());
    for request in requests {
        let plan = plan_one(board, request)?;
        let taken = plans.iter().find_map(|other| {
            let same_chip = other.chips.iter().any(|chip| plan.chips.contains(chip));
            match (
                other.name == plan.name,
                same_chip && other.line == plan.line,
            ) {
                (true, _) => Some((other, "name")),
                (_, true) => Some((other, "line")),
                _ => None,
            }
        });
        if let Some((other, what)) = taken {
            return Err(PinError::Twice {
                place: plan.place(),
                other: other.name.clone(),
                what,
            });
        }
        plans.push(plan);
    }
    Ok(plans)
}

fn plan_one(board: &Board, request: &PinRequest) -> Result<PinPlan, PinError> {
    if let PinUse::Input { debounce, .. } = request.usage
        && debounce > MAX_DEBOUNCE
    {
        let what = format!("the debounce time of pin {:?}", request.name);
        return Err(PinError::Limit {
            what,
            value: format!("{debounce:?}"),
            limit: "10 s",
        });
    }
    let Some(pin) = board.pin(&request.pin) else {
        return any_line(board, request).unwrap_or_else(|| Err(unknown(board, request)));
    };
    let plan = PinPlan {
        name: request.name.clone(),
        pin: pin.name.clone(),
        chips: pin
            .chip
            .as_ref()
            .map_or_else(|| board.gpio.chips.clone(), |chip| vec![chip.clone()]),
        line: pin.line,
        usage: request.usage,
    };
    refuse_reserved(request, Some(pin), plan)
}

/// The plan of `LABEL/LINE`. A line that the board lists under a name keeps what is said of it.
fn any_line(board: &Board, request: &PinRequest) -> Option<Result<PinPlan, PinError>> {
    let (chip, line) = request.pin.rsplit_once('/')?;
    let line: u32 = line.parse().ok()?;
    let listed = board.gpio.pins.iter().find(|pin| {
        let on_chip = match &pin.chip {
            Some(own) => own == chip,
            None => board.gpio.chips.iter().any(|label| label == chip),
        };
        on_chip && pin.line == line
    });
    let plan = PinPlan {
        name: request.name.clone(),
        pin: request.pin.clone(),
        chips: vec![chip.to_owned()],
        line,
        usage: request.usage,
    };
    Some(refuse_reserved(request, listed, plan)).filter(|_| !chip.is_empty())
}

fn refuse_reserved(
    request: &PinRequest,
    pin: Option<&PinDefinition>,
    plan: PinPlan,
) -> Result<PinPlan, PinError> {
    match pin.and_then(|pin| pin.reserved.clone()) {
        Some(reserved) if !request.insist => Err(PinError::Reserved {
            place: plan.place(),
            reserved,
        }),
        _ => Ok(plan),
    }
}

fn unknown(board: &Board, request: &PinRequest) -> PinError {
    let pins = &board.gpio.pins;
    let names = || {
        pins.iter()
            .flat_map(|pin| std::iter::once(&pin.name).chain(&pin.aliases))
    };
    let free = pins.iter().filter(|pin| pin.reserved.is_none());
    let known = match pins.is_empty() {
        true => {
            "no names; write LABEL/LINE as `gpioinfo` shows them, or a board definition".to_owned()
        }
        false => free
            .map(|pin| pin.name.as_str())
            .collect::<Vec<_>>()
            .join(" "),
    };
    PinError::Unknown {
        name: request.name.clone(),
        pin: request.pin.clone(),
        board: board.name.clone(),
        suggestion: crate::suggestion::nearest(&request.pin, names().map(String::as_str)),
        known,
    }
}
