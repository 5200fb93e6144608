//! Groups of parameters: which are left alone, which do not decay, which learn at another rate.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wattle_data::error::{Error, Result};
use wattle_graph::ops::Op;
use wattle_graph::{Graph, GraphError, ValueId};

/// Names of parameters, or patterns of names: `*` stands for any characters, `?` for one. Written `encoder.*,head`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

/// Factors of the learning rate by patterns of names, written `encoder.*=0.1,head=2`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates(pub Vec<(String, f64)>);

/// What is not treated like the rest. The default treats all parameters alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Groups {
    /// Not trained at all.
    pub freeze: Names,
    /// Trained without weight decay. Two words stand for kinds: `norm` for the scales and shifts of normalisations, `bias`
    /// for all other vectors and single numbers, and for the biases of recurrent layers.
    pub no_decay: Names,
    /// Trained at the learning rate times this; the last pattern that fits wins.
    pub rates: Rates,
}

/// How one parameter is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Treatment {
    /// Whether it is trained at all.
    pub is_trained: bool,
    /// Whether its weight decays.
    pub decays: bool,
    /// Factor of the learning rate.
    pub rate: f64,
}

impl Groups {
    /// How each of `parameters` is trained.
    ///
    /// # Errors
    /// When a pattern fits none of them: it is misspelt, and what it was for would be trained like the rest.
    pub fn treatments(
        &self,
        graph: &Graph,
        parameters: &[ValueId],
    ) -> std::result::Result<Vec<Treatment>, GraphError> {
        let name = |id: ValueId| graph.parameter_of(id).map_or("", |p| p.tensor.as_str());
        let names: Vec<&str> = parameters.iter().map(|&id| name(id)).collect();
        let known = |pattern: &str, is_kind: bool| {
            if is_kind || names.iter().any(|name| fits(pattern, name)) {
                return Ok(());
            }
            let shown: Vec<&str> = names.iter().copied().take(20).collect();
            let more = if names.len() > shown.len() { ", ..." } else { "" };
            let text = format!(
                "no parameter is called `{pattern}`; the trainable ones are: {}{more}",
                shown.join(", ")
            );
            Err(GraphError::Invalid(text))
        };
        let is_kind = |pattern: &str| pattern == "bias" || pattern == "norm";
        self.freeze.0.iter().try_for_each(|pattern| known(pattern, false))?;
        self.no_decay.0.iter().try_for_each(|pattern| known(pattern, is_kind(pattern)))?;
        self.rates.0.iter().try_for_each(|(pattern, _)| known(pattern, false))?;
        let spared = |pattern: &String, id: ValueId, name: &str| match pattern.as_str() {
            "norm" => is_norm(graph, id),
            "bias" => is_bias(graph, id),
            pattern => fits(pattern, name),
        };
        let each = parameters.iter().zip(&names).map(|(&id, name)| {
            let rate = self.rates.0.iter().rev().find(|(pattern, _)| fits(pattern, name));
            Treatment {
                is_trained: !self.freeze.0.iter().any(|pattern| fits(pattern, name)),
                decays: !self.no_decay.0.iter().any(|pattern| spared(pattern, id, name)),
                rate: rate.map_or(1.0, |(_, rate)| *rate),
            }
        });
        Ok(each.collect())
    }
}

/// Whether a parameter scales or shifts what a normalisation has made.
fn is_norm(graph: &Graph, id: ValueId) -> bool {
    graph.nodes().iter().any(|node| {
        let normalises = matches!(
            node.op,
            Op::BatchNormalization(_)
                | Op::FusedBatchNorm(_)
                | Op::GroupNormalization(_)
                | Op::LayerNormalization(_)
        );
        normalises && node.inputs.iter().skip(1).any(|&input| input == Some(id))
    })
}

fn is_bias(graph: &Graph, id: ValueId) -> bool {
    let is_vector = graph.value(id).ty.shape.dims().is_some_and(|dims| dims.len() <= 1);
    let is_recurrent = graph
        .nodes()
        .iter()
        .any(|node| matches!(node.op, Op::Recurrent(_)) && node.inputs.get(3) == Some(&Some(id)));
    (is_vector || is_recurrent) && !is_norm(graph, id)
}

/// Whether a name fits a pattern of `*`, `?` and plain characters.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // What was matched when the last `*` was met: where to try again with one character more.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

crate::text::as_text!(Names);
crate::text::as_text!(Rates);

impl FromStr for Names {
    type Err = Error;

    fn from_str(text: &str) -> Result<Names> {
        let names = text.split(',').map(|name| name.trim().to_string());
        Ok(Names(names.filter(|name| !name.is_empty()).collect()))
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> = self.0.iter().map(|(pattern, rate)| format!("{pattern}={rate}")).collect();
        f.write_str(&each.join(","))
    }
}

impl FromStr for Rates {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rates> {
        let one = |text: &str| {
            let parsed = text.rsplit_once('=').and_then(|(pattern, rate)| {
                let rate = rate.trim().parse::<f64>().ok().filter(|r| r.is_finite() && *r >= 0.0)?;
                Some((pattern.trim().to_string(), rate))
            });
            parsed.ok_or_else(|| {
                Error::input(format_args!("learning rates `{text}`"), "not a pattern and its factor")
                    .expected("pattern=factor, such as encoder.*=0.1")
            })
        };
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(one).collect::<Result<_>>().map(Rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Init, build};
    use wattle_data::SampleShape;
    use wattle_graph::Role;

    #[test]
    fn stars_and_question_marks_fit_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("encoder.*", "encoder.0.weight", true),
            ("encoder.*", "decoder.0.weight", false),
            ("*.bias", "a.b.bias", true),
            ("*.bias", "a.bias.weight", false),
            ("l?yer*w*t", "layer.0.weight", true),
            ("*", "", true),
            ("", "x", false),
            ("a*b*c", "a-b-b-c", true),
            ("fc", "fc1", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    fn treated(groups: &Groups) -> std::result::Result<Vec<(String, Treatment)>, GraphError> {
        let sample = SampleShape::Image { channels: 3, height: 32, width: 32 };
        let graph = build("resnet-20", &sample, 10, Init::KaimingNormal, 1).unwrap().graph;
        let trainable: Vec<ValueId> = graph
            .parameters()
            .filter(|&p| graph.parameter_of(p).is_some_and(|p| p.role == Role::Trainable))
            .collect();
        let found = groups.treatments(&graph, &trainable)?;
        Ok(trainable.iter().map(|&id| graph.label(id)).zip(found).collect())
    }

    #[test]
    fn each_parameter_is_treated_as_its_groups_say() {
        let groups = Groups {
            freeze: "conv.weight,blocks.0.*".parse().unwrap(),
            no_decay: "bias,norm".parse().unwrap(),
            rates: "blocks.*=0.1,blocks.8.*=0.5".parse().unwrap(),
        };
        let found = treated(&groups).unwrap();
        let of = |name: &str| found.iter().find(|(n, _)| n == name).unwrap().1;
        assert!(!of("conv.weight").is_trained && !of("blocks.0.conv1.weight").is_trained);
        assert!(of("blocks.1.conv1.weight").is_trained && of("blocks.1.conv1.weight").decays);
        assert!(!of("fc.bias").decays && !of("bn.weight").decays && !of("bn.bias").decays);
        assert!(of("fc.weight").decays);
        let rates = ["fc.weight", "blocks.3.conv1.weight", "blocks.8.conv1.weight"].map(|n| of(n).rate);
        assert_eq!(rates, [1.0, 0.1, 0.5]);
        let only_norms = Groups { no_decay: "norm".parse().unwrap(), ..Groups::default() };
        let found = treated(&only_norms).unwrap();
        assert!(found.iter().find(|(n, _)| n == "fc.bias").unwrap().1.decays);
    }

    #[test]
    fn a_pattern_that_fits_nothing_is_refused_by_name() {
        for groups in [
            Groups { freeze: "encoder.*".parse().unwrap(), ..Groups::default() },
            Groups { no_decay: "biases".parse().unwrap(), ..Groups::default() },
            Groups { rates: "head=2".parse().unwrap(), ..Groups::default() },
        ] {
            let error = treated(&groups).unwrap_err().to_string();
            assert!(error.contains("no parameter is called") && error.contains("conv.weight"), "{error}");
        }
    }

    #[test]
    fn texts_survive_a_round_trip() {
        let groups = Groups {
            freeze: "a.*,b".parse().unwrap(),
            no_decay: "bias,norm".parse().unwrap(),
            rates: "a.*=0.1,b=2".parse().unwrap(),
        };
        let json = serde_json::to_string(&groups).unwrap();
        assert_eq!(json, r#"{"freeze":"a.*,b","no_decay":"bias,norm","rates":"a.*=0.1,b=2"}"#);
        assert_eq!(serde_json::from_str::<Groups>(&json).unwrap(), groups);
        assert_eq!(serde_json::from_str::<Groups>("{}").unwrap(), Groups::default());
        for text in ["a", "a=", "a=-1", "a=x"] {
            assert!(text.parse::<Rates>().is_err(), "{text}");
        }
    }
}
