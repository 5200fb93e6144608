//! GPT-3 on V100s, as Lambda Labs computed it in 2020.

use super::{Figure, exact, product};
use crate::Unit;

pub(super) fn figures() -> Vec<Figure> {
    let flops = exact("3.14e23", Unit::Flop);
    let time = flops.ratio(&exact("28e12", Unit::FlopPerSecond)).expect("not zero");
    let years = time.to(Unit::Year).expect("a time");
    let rent = product(&[&time.to(Unit::Hour).expect("a time"), &exact("1.5", Unit::UsdPerHour)]);
    let parameters = product(&[&exact("174.6e9", Unit::One), &exact("300e9", Unit::One)]);
    let training = parameters.scaled(6.0).expect("finite");
    vec![
        Figure::new("V100-years", ("a", 1.0), "355", &years)
            .by("3.14e23 / 28e12 / (3600 x 24 x 365)")
            .truncated(),
        Figure::new("rent", ("M USD", 1e-6), "4.6", &rent).by("h x 1.5 USD").truncated(),
        Figure::new("operations", ("FLOP", 1.0), "3.14e23", &training)
            .by("6 x 174.6e9 parameters x 300e9 tokens"),
    ]
}
