//! Which of the formats and sizes on offer costs least.

use crate::pixel_format::PixelFormat;

/// One format and size a camera offers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Layout of the pixels.
    pub pixel: PixelFormat,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Fastest rate in frames a second; none if the driver does not tell.
    pub rate: Option<f64>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wish {
    /// Least width in pixels.
    pub width: u32,
    /// Least height in pixels.
    pub height: u32,
    /// Least rate in frames a second.
    pub rate: f64,
    /// Only this format.
    pub pixel: Option<PixelFormat>,
}

/// Work a pixel of the wanted format costs: bytes moved over the bus and copied, plus about as many simple
/// operations as the conversion to RGB takes.
///
/// The order is what counts: formats without conversion first, then the smallest YUV, then JPEG, whose
/// decoding costs ten times a conversion. Bayer comes late as its colours are raw, and formats without
/// colour last of all.
fn pixel_cost(pixel: PixelFormat) -> f64 {
    match pixel {
        PixelFormat::Rgb3 => 3.0,
        PixelFormat::Bgr3 => 3.5,
        PixelFormat::Nv12 | PixelFormat::Nv21 | PixelFormat::Yu12 | PixelFormat::Yv12 => 4.0,
        PixelFormat::Yuyv | PixelFormat::Uyvy => 4.5,
        PixelFormat::Mjpg => 30.0,
        PixelFormat::Bayer { bits: 8, .. } => 200.0,
        PixelFormat::Bayer { .. } => 220.0,
        PixelFormat::Grey => 2_000.0,
        _ => 2_200.0,
    }
}

/// Work a pixel costs to be scaled away.
const SCALING: f64 = 1.5;
/// How much a camera at half the wanted rate is worse than one at the full rate.
const SLOWNESS: f64 = 8.0;

/// Cost of an offer; none if it cannot serve: too small (nothing makes up for missing pixels) or of another
/// format than the one insisted on.
///
/// `pixels × (cost of the format + scaling, if larger than wanted)`, times `1 + 8 × (wanted rate / rate − 1)`
/// when slower than wanted. An unknown rate counts as enough.
pub fn cost(offer: &Offer, wish: &Wish) -> Option<f64> {
    let fits = offer.width >= wish.width && offer.height >= wish.height;
    let asked = wish.pixel.is_none_or(|pixel| pixel == offer.pixel);
    if !fits || !asked {
        return None;
    }
    let exact = offer.width == wish.width && offer.height == wish.height;
    let scaling = if exact { 0.0 } else { SCALING };
    let pixels = f64::from(offer.width) * f64::from(offer.height);
    let shortage = offer
        .rate
        .map_or(0.0, |rate| (wish.rate / rate - 1.0).max(0.0));
    Some(pixels * (pixel_cost(offer.pixel) + scaling) * (1.0 + SLOWNESS * shortage))
}

/// The cheapest offer; the first of equals. None if none can serve.
pub fn cheapest<'a>(offers: &'a [Offer], wish: &Wish) -> Option<&'a Offer> {
    let priced = offers
        .iter()
        .filter_map(|offer| Some((offer, cost(offer, wish)?)));
    let least = priced.reduce(|best, next| if next.1 < best.1 { next } else { best });
    least.map(|(offer, _)| offer)
}

/// The size within a stepwise range that serves a wanted size: the least that is no smaller, else the largest.
pub(super) fn fit(wanted: u32, least: u32, most: u32, step: u32) -> u32 {
    let beyond = u64::from(wanted.saturating_sub(least));
    let steps = beyond.div_ceil(u64::from(step.max(1)));
    let fitted = u64::from(least) + steps * u64::from(step.max(1));
    u32::try_from(fitted).map_or(most, |fitted| fitted.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offer(pixel: &[u8; 4], width: u32, height: u32, rate: f64) -> Offer {
        let pixel = PixelFormat::from_fourcc(*pixel).unwrap();
        Offer {
            pixel,
            width,
            height,
            rate: Some(rate),
        }
    }

    const VGA: Wish = Wish {
        width: 640,
        height: 480,
        rate: 5.0,
        pixel: None,
    };

    #[test]
    fn the_cheapest_offer_is_taken() {
        let hd = Wish {
            width: 1280,
            height: 720,
            ..VGA
        };
        let fast = Wish { rate: 30.0, ..hd };
        let grey = Wish {
            pixel: Some(PixelFormat::Grey),
            ..VGA
        };
        let webcam = [
            offer(b"MJPG", 640, 480, 30.0),
            offer(b"MJPG", 1280, 720, 30.0),
            offer(b"YUYV", 320, 240, 30.0),
            offer(b"YUYV", 640, 480, 30.0),
            offer(b"YUYV", 1280, 720, 10.0),
            offer(b"YUYV", 1920, 1080, 2.0),
            offer(b"GREY", 640, 480, 30.0),
        ];
        let raw = [
            offer(b"RG10", 640, 480, 30.0),
            offer(b"MJPG", 1920, 1080, 30.0),
        ];
        let planar = [
            offer(b"YUYV", 640, 480, 30.0),
            offer(b"NV12", 640, 480, 30.0),
        ];
        let cases: [(&str, &[Offer], Wish, Option<usize>); 8] = [
            ("uncompressed before JPEG", &webcam, VGA, Some(3)),
            ("large and fast enough", &webcam, hd, Some(4)),
            ("JPEG where YUYV is far too slow", &webcam, fast, Some(1)),
            ("a format insisted on", &webcam, grey, Some(6)),
            (
                "nothing is large enough",
                &webcam,
                Wish { width: 4000, ..VGA },
                None,
            ),
            (
                "a developed picture before a raw one of the size",
                &raw,
                VGA,
                Some(1),
            ),
            ("fewer bytes", &planar, VGA, Some(1)),
            ("no offers", &[], VGA, None),
        ];
        for (name, offers, wish, expected) in cases {
            let found = cheapest(offers, &wish);
            assert_eq!(found, expected.map(|index| &offers[index]), "{name}");
        }
    }

    #[test]
    fn an_unknown_rate_counts_as_enough() {
        let unknown = Offer {
            rate: None,
            ..offer(b"YUYV", 640, 480, 0.0)
        };
        let known = offer(b"YUYV", 640, 480, 5.0);
        assert_eq!(cost(&unknown, &VGA), cost(&known, &VGA));
    }

    #[test]
    fn a_size_fits_the_steps_of_a_range() {
        let cases = [
            ((640, 32, 2592, 16), 640),
            ((641, 32, 2592, 16), 656),
            ((10, 32, 2592, 16), 32),
            ((9999, 32, 2592, 16), 2592),
            ((640, 640, 640, 0), 640),
            ((u32::MAX, 0, u32::MAX, u32::MAX), u32::MAX),
        ];
        for ((wanted, least, most, step), expected) in cases {
            assert_eq!(
                fit(wanted, least, most, step),
                expected,
                "{wanted} {least} {most} {step}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_chosen_serves_and_nothing_costs_less(
            offers in proptest::collection::vec(
                (0usize..33, 1u32..4000, 1u32..4000, proptest::option::of(0.1f64..120.0)), 0..30,
            ),
            width in 1u32..2000, height in 1u32..2000, rate in 0.1f64..60.0,
        ) {
            let formats: Vec<PixelFormat> = PixelFormat::all().collect();
            let offers: Vec<Offer> = offers.into_iter().map(|(pixel, width, height, rate)| {
                Offer { pixel: formats[pixel % formats.len()], width, height, rate }
            }).collect();
            let wish = Wish { width, height, rate, pixel: None };
            let Some(best) = cheapest(&offers, &wish) else {
                prop_assert!(offers.iter().all(|offer| cost(offer, &wish).is_none()));
                return Ok(());
            };
            prop_assert!(best.width >= width && best.height >= height);
            let least = cost(best, &wish).unwrap();
            prop_assert!(offers.iter().filter_map(|offer| cost(offer, &wish)).all(|cost| cost >= least));
        }
    }
}
