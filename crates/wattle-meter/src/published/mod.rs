//! Published figures of machine learning's footprint, computed again from their papers' own inputs.
//!
//! A figure agrees when our value, rounded as the paper rounds, is the printed one. Inputs are printed with few
//! digits too: where the printed inputs, taken as the intervals that they stand for, allow the printed result, it
//! agrees within the rounding of its inputs. Anything else differs, and says by how much. Figures and inputs that
//! were recalled instead of read in the cited source are marked so and never counted as verified.

mod bloom;
mod gpt3;
mod llama;
mod llmcarbon;
mod patterson;
mod strubell;
mod thompson;

use serde::Serialize;

use crate::{Quantity, Source, Unit};

pub use thompson::{Benchmark, benchmarks};

/// Whose figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the citations are in `citation`")]
pub enum Paper {
    Strubell2019,
    Gpt3,
    Patterson2021,
    Llmcarbon,
    Bloom,
    Llama,
    Thompson2020,
}

impl Paper {
    /// All of them.
    pub const ALL: [Paper; 7] = [
        Paper::Strubell2019,
        Paper::Gpt3,
        Paper::Patterson2021,
        Paper::Llmcarbon,
        Paper::Bloom,
        Paper::Llama,
        Paper::Thompson2020,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Paper::Strubell2019 => "strubell2019",
            Paper::Gpt3 => "gpt3",
            Paper::Patterson2021 => "patterson2021",
            Paper::Llmcarbon => "llmcarbon",
            Paper::Bloom => "bloom",
            Paper::Llama => "llama",
            Paper::Thompson2020 => "thompson2020",
        }
    }

    /// The publication.
    pub fn citation(self) -> &'static str {
        match self {
            Paper::Strubell2019 => {
                "Strubell, Ganesh, McCallum 2019, Energy and Policy Considerations for Deep Learning in NLP, Table 3"
            }
            Paper::Gpt3 => "Lambda Labs 2020 on training GPT-3; Brown et al. 2020 for its operations",
            Paper::Patterson2021 => {
                "Patterson et al. 2021, Carbon Emissions and Large Neural Network Training, Table 4"
            }
            Paper::Llmcarbon => "Faiz et al. 2024, LLMCarbon (ICLR), data of its repository (Apache-2.0)",
            Paper::Bloom => "Luccioni, Viguier, Ligozat 2023, Estimating the Carbon Footprint of BLOOM",
            Paper::Llama => "Touvron et al. 2023, LLaMA, Table 15, and the model card of Llama 2",
            Paper::Thompson2020 => {
                "Thompson, Greenewald, Lee, Manso 2020, The Computational Limits of Deep Learning (arXiv 2007.05558 v1)"
            }
        }
    }

    /// What a reader must know beside the figures.
    pub fn corrections(self) -> &'static [&'static str] {
        match self {
            Paper::Strubell2019 => &[
                "The architecture search did not happen as computed: the real one emitted 3.2 t (7.5 MWh), where \
                 626,155 lb are 284 t, 88 times more (Patterson et al. 2021: a proxy task, and TPUv2 instead of P100).",
            ],
            Paper::Gpt3 => &[
                "28 TFLOP/s is the V100's theoretical fp16 rate without tensor cores, taken as achieved. Patterson et \
                 al. 2021 give 24.6 TFLOP/s sustained, 19.7 % of the tensor peak of 125: two errors nearly cancel.",
            ],
            Paper::Patterson2021 => &[
                "t/MWh of GShard and Switch is net of energy contracts (market-based), that of the others gross \
                 (location-based): these tonnes do not compare. W/chip is a measured average with host and network, \
                 not a maximum; PUE is applied to it once.",
            ],
            Paper::Llmcarbon => &[
                "Efficiencies were calibrated on these very rows: the forward estimates below are a fit, not a \
                 validation. Operations of the mixtures use 2.3 and 7.41 G active parameters, not 619 and 1500.",
            ],
            Paper::Bloom => &[
                "Idle and embodied shares double the dynamic 24.7 t to 50.5 t: always state the boundary. The paper \
                 prints the project's energy as 1,163,088 and as 1,163,032 kWh; its rows sum to 1,162,976.",
            ],
            Paper::Llama => &[
                "400 W is the maximum of an A100, not its draw. MWh are truncated in Table 15; those of BLOOM do not \
                 follow from its GPU hours. Llama 2 uses the same PUE of 1.1 and 0.385 kg/kWh: its tonnes say so.",
            ],
            Paper::Thompson2020 => &[
                "The printed powers of ten are floors, recalled and not read in the paper. The points come from the \
                 authors' web site without a licence and are not shipped, only what a regression through them gives; \
                 option `points=DIR` fits them anew.",
                "Do not read them as forecasts: by its slope's 95 % interval the ImageNet power lies between 7.9 and 51; \
                 regressing the other way puts 1 % error at 10^18.8 GFLOP, ten decades below.",
            ],
        }
    }

    /// Its figures, computed.
    pub fn figures(self) -> Vec<Figure> {
        match self {
            Paper::Strubell2019 => strubell::figures(),
            Paper::Gpt3 => gpt3::figures(),
            Paper::Patterson2021 => patterson::figures(),
            Paper::Llmcarbon => llmcarbon::figures(),
            Paper::Bloom => bloom::figures(),
            Paper::Llama => llama::figures(),
            Paper::Thompson2020 => thompson::figures(),
        }
    }
}

/// How a paper shortened its figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// To the nearest number of as many decimal places as printed.
    Nearest,
    /// Cut off after the places printed.
    Truncated,
}

/// Whether we have read the printed figure and its inputs in the cited source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Read there, or in a quotation of it.
    Read,
    /// Remembered; not to be relied upon.
    Recalled,
}

/// What the comparison says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Our value rounds to the printed one.
    Agrees,
    /// The printed inputs, as rounded, allow the printed value.
    AgreesWithinInputs,
    /// Neither.
    Differs,
}

impl Verdict {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Verdict::Agrees => "agrees",
            Verdict::AgreesWithinInputs => "agrees within rounded inputs",
            Verdict::Differs => "differs",
        }
    }
}

/// One published number beside ours.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Of what.
    pub what: String,
    /// Unit of printed and computed value.
    pub unit: &'static str,
    /// As the paper prints it.
    pub printed: String,
    /// Ours: lowest, best and highest value that the printed inputs allow.
    pub ours: [f64; 3],
    /// How ours is computed.
    pub formula: &'static str,
    /// How the paper rounds.
    pub rounding: Rounding,
    /// Whether inputs and printed value were read.
    pub seen: Seen,
    /// A remark for this figure alone.
    pub note: String,
}

impl Figure {
    /// A figure rounded to the nearest, read in its source. `ours` is in `unit` after multiplying by `scale`.
    fn new(what: impl Into<String>, unit: (&'static str, f64), printed: &str, ours: &Quantity) -> Figure {
        Figure {
            what: what.into(),
            unit: unit.0,
            printed: printed.to_owned(),
            ours: [ours.low(), ours.value(), ours.high()].map(|x| x * unit.1),
            formula: "",
            rounding: Rounding::Nearest,
            seen: Seen::Read,
            note: String::new(),
        }
    }

    fn by(self, formula: &'static str) -> Figure {
        Figure { formula, ..self }
    }

    fn truncated(self) -> Figure {
        Figure { rounding: Rounding::Truncated, ..self }
    }

    fn recalled(self, recalled: bool) -> Figure {
        Figure { seen: if recalled { Seen::Recalled } else { self.seen }, ..self }
    }

    fn note(self, note: &str) -> Figure {
        Figure { note: note.to_owned(), ..self }
    }

    /// The comparison under the paper's own rounding.
    pub fn verdict(&self) -> Verdict {
        let printed = Printed::read(&self.printed);
        let (from, to) = match self.rounding {
            Rounding::Nearest => (printed.value - printed.place / 2.0, printed.value + printed.place / 2.0),
            Rounding::Truncated => (printed.value, printed.value + printed.place),
        };
        // A hair for the binary representation of decimal halves.
        let slack = 1e-9 * printed.value.abs().max(printed.place);
        let [low, value, high] = self.ours;
        if (from - slack..=to + slack).contains(&value) {
            Verdict::Agrees
        } else if low <= to + slack && from - slack <= high {
            Verdict::AgreesWithinInputs
        } else {
            Verdict::Differs
        }
    }

    /// Ours over the printed value, less one.
    pub fn deviation(&self) -> f64 {
        self.ours[1] / Printed::read(&self.printed).value - 1.0
    }
}

/// A decimal number as it stands in a table: its value, and the worth of its last digit.
struct Printed {
    value: f64,
    place: f64,
}

impl Printed {
    /// Reads `1,438`, `0.95` or `3.14e23`.
    ///
    /// # Panics
    /// On anything else; every number of this module is read by a test.
    fn read(text: &str) -> Printed {
        let plain = text.replace(',', "");
        let (mantissa, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
        let decimals = mantissa.split_once('.').map_or(0, |(_, digits)| digits.len()) as i32;
        let exponent: i32 = exponent.parse().unwrap_or_else(|_| panic!("exponent of {text:?}"));
        let value: f64 = plain.parse().unwrap_or_else(|_| panic!("{text:?} is no number"));
        Printed { value, place: 10f64.powi(exponent - decimals) }
    }
}

/// A printed input as the interval that its rounding stands for.
fn rounded(text: &str, unit: Unit) -> Quantity {
    let Printed { value, place } = Printed::read(text);
    let source = Source::published("as printed");
    Quantity::new(value, value - place / 2.0, value + place / 2.0, unit, source).expect("ordered and finite")
}

/// A printed input that is exact: a count, a definition.
fn exact(text: &str, unit: Unit) -> Quantity {
    Quantity::exact(Printed::read(text).value, unit, Source::published("as printed")).expect("finite")
}

/// The product of quantities whose units are known to combine.
fn product(factors: &[&Quantity]) -> Quantity {
    let mut factors = factors.iter();
    let first = (*factors.next().expect("at least one factor")).clone();
    factors.fold(first, |product, factor| product.times(factor).expect("a test runs every formula"))
}

/// Tonnes in a gram.
const TONNES: (&str, f64) = ("t CO2e", 1e-6);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn all() -> Vec<(Paper, Figure)> {
        Paper::ALL.iter().flat_map(|p| p.figures().into_iter().map(move |f| (*p, f))).collect()
    }

    #[test]
    fn at_least_sixty_printed_numbers_that_were_read_agree() {
        let all = all();
        let read = all.iter().filter(|(_, f)| f.seen == Seen::Read && f.verdict() != Verdict::Differs);
        assert!(read.count() >= 60);
        assert!(all.iter().filter(|(_, f)| f.verdict() != Verdict::Differs).count() >= 110);
        assert!(all.iter().all(|(_, f)| !f.formula.is_empty()), "a figure without a formula");
    }

    #[test]
    fn what_differs_is_known_and_explained() {
        let mut differing: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (paper, figure) in all() {
            if figure.verdict() == Verdict::Differs {
                assert!(!figure.note.is_empty(), "{figure:?} differs without a word");
                differing.entry(paper.name()).or_default().push(figure.what);
            }
        }
        let names = |paper: &str| differing.get(paper).map_or(0, Vec::len);
        assert_eq!(
            (names("strubell2019"), names("gpt3"), names("patterson2021")),
            (0, 0, 0),
            "{differing:?}"
        );
        assert_eq!((names("bloom"), names("llama"), names("thompson2020")), (1, 1, 0), "{differing:?}");
    }

    #[test]
    fn every_figure_of_patterson_is_within_one_percent_of_the_printed_rounding() {
        for figure in Paper::Patterson2021.figures() {
            let Printed { value, place } = Printed::read(&figure.printed);
            let allowed = (0.99 * (value - place / 2.0))..=(1.01 * (value + place / 2.0));
            assert!(allowed.contains(&figure.ours[1]), "{figure:?}");
        }
    }

    #[test]
    fn printed_numbers_know_the_worth_of_their_last_digit() {
        let place = |text| Printed::read(text).place;
        assert_eq!((place("1,438"), place("0.95")), (1.0, 0.01));
        assert!((place("3.14e23") / 1e21 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn rounding_is_the_papers_own_and_a_wrong_figure_is_caught() {
        let ours = |value: f64| Quantity::exact(value, Unit::One, Source::published("x")).unwrap();
        let figure = |value| Figure::new("x", ("", 1.0), "355", &ours(value));
        assert_eq!(figure(355.6).verdict(), Verdict::Differs);
        assert_eq!(figure(355.6).truncated().verdict(), Verdict::Agrees);
        assert_eq!(figure(354.9).truncated().verdict(), Verdict::Differs);
        let wide = Quantity::new(357.0, 355.0, 359.0, Unit::One, Source::published("x")).unwrap();
        assert_eq!(Figure::new("x", ("", 1.0), "355", &wide).verdict(), Verdict::AgreesWithinInputs);
    }

    #[test]
    fn the_correction_of_the_architecture_search_is_never_left_out() {
        assert!(Paper::Strubell2019.corrections()[0].contains("88 times"));
        let pounds: f64 = 626_155.0 * 453.592_37e-6;
        assert!((pounds / 3.2 - 88.76).abs() < 0.01);
    }
}
