//! Settling format, rate and controls with a driver.

use std::io;
use std::sync::Arc;

use nix::errno::Errno;

use super::choice::{Offer, Wish, cheapest, fit};
use super::color;
use super::control::{ControlError, plan, then};
use super::node::{Node, Sizes};
use crate::frame::FrameFormat;
use crate::pixel_format::PixelFormat;
use crate::source::{SourceError, SourceOptions};
use crate::view::View;

/// Least size where none is asked for, in pixels.
const USUAL_SIZE: (u32, u32) = (640, 480);
/// Least rate where none is asked for, in frames a second.
const USUAL_RATE: f64 = 5.0;
/// Formats tried before anything else, by cost: a list that stays short with drivers that offer everything.
const MAX_OFFERS: usize = 4096;

/// What driver and caller have agreed on.
pub(super) struct Setup {
    pub(super) format: FrameFormat,
    pub(super) view: Arc<View>,
}

/// Settles timings, format, rate and controls, in this order: drivers reset what comes later when what comes
/// earlier changes.
pub(super) fn apply(
    node: &Node,
    options: &SourceOptions,
    address: &str,
) -> Result<Setup, SourceError> {
    adopt_signal(node, address)?;
    let format = settle_format(node, options, address)?;
    if let Some(rate) = options.rate {
        // Not every driver has rates to choose from; the choice has weighed them already.
        let _ = node.set_rate(rate);
    }
    let view = set_controls(node, options).map_err(|source| SourceError::Control {
        address: address.to_owned(),
        source,
    })?;
    Ok(Setup { format, view })
}

/// Takes over the timings of inputs that have some.
fn adopt_signal(node: &Node, address: &str) -> Result<(), SourceError> {
    let what = match node.adopt_timings().map_err(|error| errno(&error)) {
        Err(Errno::ENOLINK) => "there is no signal at the input",
        Err(Errno::ENOLCK) => "the signal at the input is not steady",
        Err(Errno::ERANGE) => "the signal at the input has timings the device does not support",
        Err(Errno::ENODEV) => {
            let what = "reading the input's timings: no such device".into();
            return Err(SourceError::Lost {
                address: address.to_owned(),
                what,
            });
        }
        // Webcams have no timings; a device in use does not let go of those it has.
        _ => return Ok(()),
    };
    Err(SourceError::Unavailable {
        address: address.to_owned(),
        what: what.into(),
        advice: "check cable and sender".into(),
    })
}

fn errno(error: &io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::UnknownErrno, Errno::from_raw)
}

fn settle_format(
    node: &Node,
    options: &SourceOptions,
    address: &str,
) -> Result<FrameFormat, SourceError> {
    let (width, height) = options.size.unwrap_or(USUAL_SIZE);
    let (rate, pixel) = (options.rate.unwrap_or(USUAL_RATE), options.pixel);
    let wish = Wish {
        width,
        height,
        rate,
        pixel,
    };
    let offers = offers(node, &wish);
    let chosen = match cheapest(&offers, &wish) {
        Some(chosen) => *chosen,
        // A camera without a size asked for gives its largest.
        None if options.size.is_none() => {
            largest(&offers, &wish).ok_or_else(|| none_fits(&offers, &wish, address))?
        }
        None => return Err(none_fits(&offers, &wish, address)),
    };
    let agreed = node.agree(chosen.pixel.fourcc(), (chosen.width, chosen.height));
    let agreed = agreed.map_err(|error| match errno(&error) {
        Errno::EBUSY => crate::device::busy(address),
        Errno::ENODEV => SourceError::Lost {
            address: address.to_owned(),
            what: format!("setting the format: {error}"),
        },
        _ => SourceError::Broken {
            address: address.to_owned(),
            what: format!(
                "setting {}x{} {}: {error}",
                chosen.width, chosen.height, chosen.pixel
            ),
        },
    })?;
    let pixel = PixelFormat::from_fourcc(agreed.fourcc).ok_or_else(|| SourceError::Unusable {
        address: address.to_owned(),
        what: format!(
            "asked for {}, the driver gives {:?}",
            chosen.pixel,
            String::from_utf8_lossy(&agreed.fourcc)
        ),
        advice: "ask for another format with pixel=…".into(),
    })?;
    let stride = if pixel == PixelFormat::Mjpg {
        0
    } else {
        agreed.stride
    };
    let color = options.color(color::color(pixel, agreed.encoding));
    Ok(FrameFormat {
        pixel,
        width: agreed.width,
        height: agreed.height,
        stride,
        color,
    })
}

fn largest(offers: &[Offer], wish: &Wish) -> Option<Offer> {
    let asked = offers
        .iter()
        .filter(|offer| wish.pixel.is_none_or(|pixel| pixel == offer.pixel));
    let most = asked.max_by_key(|offer| u64::from(offer.width) * u64::from(offer.height))?;
    let wish = Wish {
        width: most.width,
        height: most.height,
        ..*wish
    };
    cheapest(offers, &wish).copied()
}

fn none_fits(offers: &[Offer], wish: &Wish, address: &str) -> SourceError {
    let listed = offers
        .iter()
        .map(|offer| format!("{}x{} {}", offer.width, offer.height, offer.pixel));
    let mut listed: Vec<String> = listed.collect();
    listed.dedup();
    let pixel = wish
        .pixel
        .map_or_else(|| "any format".into(), |pixel| pixel.to_string());
    SourceError::Unusable {
        address: address.to_owned(),
        what: format!(
            "it has nothing of at least {}x{} in {pixel}; it offers {}",
            wish.width,
            wish.height,
            if listed.is_empty() {
                "nothing this program reads".into()
            } else {
                listed.join(", ")
            }
        ),
        advice: "ask for a smaller size, or another format".into(),
    }
}

/// Everything on offer in formats this crate reads, with rates.
fn offers(node: &Node, wish: &Wish) -> Vec<Offer> {
    let mut offers = Vec::new();
    for pixel in readable(node) {
        let mut sizes = sizes(node, pixel, wish);
        sizes.sort_unstable();
        sizes.dedup();
        offers.extend(sizes.into_iter().map(|(width, height)| {
            let rate = node.fastest(pixel.fourcc(), (width, height));
            Offer {
                pixel,
                width,
                height,
                rate,
            }
        }));
    }
    offers.truncate(MAX_OFFERS);
    offers
}

/// Formats that driver and this crate know, each once.
fn readable(node: &Node) -> Vec<PixelFormat> {
    let mut known = Vec::new();
    for code in node.formats() {
        match PixelFormat::from_fourcc(code) {
            Some(pixel) if !known.contains(&pixel) => known.push(pixel),
            _ => {}
        }
    }
    known
}

/// Sizes to choose from: of a range the one that fits best, and the wanted one if the driver names none.
fn sizes(node: &Node, pixel: PixelFormat, wish: &Wish) -> Vec<(u32, u32)> {
    let listed = node.sizes(pixel.fourcc());
    if listed.is_empty() {
        return vec![(wish.width, wish.height)];
    }
    let fitted = |Sizes { least, most, step }| {
        (
            fit(wish.width, least.0, most.0, step.0),
            fit(wish.height, least.1, most.1, step.1),
        )
    };
    listed.into_iter().map(fitted).collect()
}

fn set_controls(node: &Node, options: &SourceOptions) -> Result<Arc<View>, ControlError> {
    if options.controls.is_empty() {
        return Ok(Arc::clone(&options.view));
    }
    let controls = node.controls();
    let plan = plan(&controls, &options.controls)?;
    for (control, number, value) in plan.set {
        node.set_control(control.id, number)
            .map_err(|error| ControlError::Refused {
                name: control.name.clone(),
                value: value.to_owned(),
                reason: error.to_string(),
                range: control.range(),
            })?;
    }
    let mut view = Arc::clone(&options.view);
    let orientation = then(plan.rest, view.orientation);
    if plan.rest != Default::default() {
        Arc::make_mut(&mut view).orientation = orientation;
    }
    Ok(view)
}
