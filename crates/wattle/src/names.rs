//! Values that people choose by name, as arguments.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// Parses one of these names into its value; the sentences are shown by `--help`.
pub fn named<T: Copy + Send + Sync + 'static>(
    names: &'static [(&'static str, T, &'static str)],
) -> impl TypedValueParser<Value = T> {
    let shown = names.iter().map(|(name, _, about)| PossibleValue::new(*name).help(*about));
    PossibleValuesParser::new(shown).try_map(move |text| {
        let found = names.iter().find(|(name, ..)| *name == text);
        found.map(|(_, value, _)| *value).ok_or("not one of the names")
    })
}
