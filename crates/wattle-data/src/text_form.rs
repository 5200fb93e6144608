//! Options that have a text are that text in configurations.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Capacities, ColumnMap, Missing, NormalisationChoice};

macro_rules! as_text {
    ($($option:ty),*) => {$(
        impl Serialize for $option {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $option {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

as_text!(Capacities, ColumnMap, Missing, NormalisationChoice);

#[cfg(test)]
mod tests {
    use crate::{SplitOptions, TableOptions, Task, TextOptions};

    /// Everything that changes what is read is in the configuration, so that runs are named by it.
    #[test]
    fn options_survive_a_configuration_and_each_is_in_it() {
        let base = TableOptions::default();
        let mut varied = vec![
            TableOptions { columns: "x=a+b".parse().unwrap(), ..base.clone() },
            TableOptions { targets: vec!["t".into()], ..base.clone() },
            TableOptions { ignore_index: Some(-1), ..base.clone() },
            TableOptions { missing: "drop".parse().unwrap(), ..base.clone() },
            TableOptions { split: SplitOptions { seed: 4, ..SplitOptions::default() }, ..base.clone() },
            TableOptions {
                split: SplitOptions { validation: 0.3, ..SplitOptions::default() },
                ..base.clone()
            },
            TableOptions { split: SplitOptions { test: 0.3, ..SplitOptions::default() }, ..base.clone() },
            TableOptions { text: TextOptions { length: Some(7), ..TextOptions::default() }, ..base.clone() },
            TableOptions {
                text: TextOptions { tokenizer: Some("bytes".into()), ..TextOptions::default() },
                ..base.clone()
            },
            base.clone(),
        ];
        let (mut task, mut shape) = (base.clone(), base);
        task.load.task = Some(Task::Values);
        shape.load.image_shape = Some([3, 8, 8]);
        varied.extend([task, shape]);
        let texts: Vec<String> =
            varied.iter().map(|options| serde_json::to_string(options).unwrap()).collect();
        let distinct: std::collections::HashSet<_> = texts.iter().collect();
        assert_eq!(distinct.len(), varied.len());
        for (text, options) in texts.iter().zip(&varied) {
            assert_eq!(serde_json::from_str::<TableOptions>(text).unwrap(), *options);
        }
        let elsewhere = TableOptions { in_memory: Some(1), ..TableOptions::default() };
        assert_eq!(
            serde_json::to_string(&elsewhere).unwrap(),
            serde_json::to_string(&TableOptions::default()).unwrap(),
            "where arrays are kept changes no number"
        );
    }
}
