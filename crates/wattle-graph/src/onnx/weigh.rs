//! How much memory a file's messages will take once decoded, found by walking its bytes before decoding them.
//!
//! A message of two bytes in the file becomes a struct of hundreds, so a hostile file of a gigabyte could ask for a
//! hundred times as much. This walk allocates nothing that grows with the file.

use std::mem::size_of;

use super::proto::*;

/// Deepest nesting that is walked; protobuf decoders refuse deeper files (prost: 100).
const MAX_DEPTH: usize = 100;

/// The messages of the format.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Message {
    Model,
    OperatorSet,
    Function,
    Graph,
    Node,
    Attribute,
    Tensor,
    Entry,
    Sparse,
    ValueInfo,
    Type,
    TensorType,
    TensorShape,
    Dimension,
}

/// What a field holds, as far as it matters for memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Message(Message),
    /// A text or bytes: a header in a list, and their content.
    Text,
    /// A list of numbers of this many bytes each.
    Numbers(u64),
    /// Part of the struct itself, or skipped.
    Other,
}

impl Message {
    fn size(self) -> u64 {
        let bytes = match self {
            Message::Model => size_of::<ModelProto>(),
            Message::OperatorSet => size_of::<OperatorSetIdProto>(),
            Message::Function => size_of::<FunctionProto>(),
            Message::Graph => size_of::<GraphProto>(),
            Message::Node => size_of::<NodeProto>(),
            Message::Attribute => size_of::<AttributeProto>(),
            Message::Tensor => size_of::<TensorProto>(),
            Message::Entry => size_of::<StringStringEntryProto>(),
            Message::Sparse => size_of::<SparseTensorProto>(),
            Message::ValueInfo => size_of::<ValueInfoProto>(),
            Message::Type => size_of::<TypeProto>(),
            Message::TensorType => size_of::<TensorTypeProto>(),
            Message::TensorShape => size_of::<TensorShapeProto>(),
            Message::Dimension => size_of::<DimensionProto>(),
        };
        bytes as u64
    }

    /// The field of this number; mirrors the messages in `proto.rs`.
    fn field(self, number: u64) -> Field {
        use Field::*;
        match (self, number) {
            (Self::Model, 7) => Message(Self::Graph),
            (Self::Model, 8) | (Self::Function, 9) => Message(Self::OperatorSet),
            (Self::Model, 14) => Message(Self::Entry),
            (Self::Model, 25) => Message(Self::Function),
            (Self::Function, 4 | 5) | (Self::Node, 1 | 2) | (Self::Attribute, 9) => Text,
            (Self::Function, 7) | (Self::Graph, 1) => Message(Self::Node),
            (Self::Function, 11) | (Self::Node, 5) => Message(Self::Attribute),
            (Self::Graph, 5) | (Self::Attribute, 5) | (Self::Sparse, 1 | 2) => Message(Self::Tensor),
            (Self::Graph, 11 | 12) => Message(Self::ValueInfo),
            (Self::Graph, 15) | (Self::Attribute, 22) => Message(Self::Sparse),
            (Self::Attribute, 6) => Message(Self::Graph),
            (Self::Attribute, 7) | (Self::Tensor, 4 | 5) => Numbers(4),
            (Self::Attribute, 8) | (Self::Tensor, 1 | 7 | 10 | 11) | (Self::Sparse, 3) => Numbers(8),
            (Self::Tensor, 13) => Message(Self::Entry),
            (Self::ValueInfo, 2) => Message(Self::Type),
            (Self::Type, 1) => Message(Self::TensorType),
            (Self::TensorType, 2) => Message(Self::TensorShape),
            (Self::TensorShape, 1) => Message(Self::Dimension),
            _ => Other,
        }
    }
}

/// Bytes that decoding a model file takes besides the content of its texts and tensors: structs, headers of texts,
/// and numbers that are shorter in the file than in memory. Lists that grow may hold twice as much for a moment.
///
/// A file that breaks off or is malformed is weighed up to there, for a decoder gets no further.
pub fn structure_bytes(file: &[u8]) -> u64 {
    let mut total = Message::Model.size();
    // Ends of the messages around the current position, innermost last.
    let mut open = vec![(Message::Model, file.len())];
    let mut at = 0;
    while let Some(&(message, end)) = open.last() {
        if at >= end {
            open.pop();
            continue;
        }
        let Some(tag) = varint(file, &mut at) else { break };
        let field = message.field(tag >> 3);
        let numbers = if let Field::Numbers(size) = field { size } else { 0 };
        match tag & 7 {
            0 => {
                if varint(file, &mut at).is_none() {
                    break;
                }
                total += numbers;
            }
            1 => at += 8,
            5 => at += 4,
            2 => {
                let Some(length) = varint(file, &mut at) else { break };
                let Some(inner) = usize::try_from(length).ok().and_then(|n| at.checked_add(n)) else { break };
                if inner > end {
                    break;
                }
                match field {
                    Field::Message(kind) if open.len() < MAX_DEPTH => {
                        total += kind.size();
                        open.push((kind, inner));
                        continue;
                    }
                    Field::Message(_) => break,
                    Field::Text => total += size_of::<String>() as u64,
                    // Each number takes a byte in the file at least; those of fixed size take as much as in memory.
                    Field::Numbers(size) => total += (size - 1) * length,
                    Field::Other => {}
                }
                at = inner;
            }
            // Groups: their fields are weighed as if they stood outside.
            3 | 4 => {}
            _ => break,
        }
    }
    total
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// The same sum over decoded messages.
    fn weighed(model: &ModelProto) -> u64 {
        let graph = model.graph.as_ref().unwrap();
        let node = |n: &NodeProto| {
            size_of::<NodeProto>()
                + (n.input.len() + n.output.len()) * size_of::<String>()
                + n.attribute.iter().map(|a| size_of::<AttributeProto>() + 7 * a.ints.len()).sum::<usize>()
        };
        (size_of::<ModelProto>()
            + size_of::<GraphProto>()
            + graph.node.iter().map(node).sum::<usize>()
            + graph.initializer.iter().map(|t| size_of::<TensorProto>() + 7 * t.dims.len()).sum::<usize>())
            as u64
    }

    #[test]
    fn the_walk_finds_what_decoding_makes() {
        let attribute =
            AttributeProto { name: "axes".into(), ints: vec![1, 2, 3], ..AttributeProto::default() };
        let node = NodeProto {
            input: vec!["x".into(), "y".into()],
            output: vec!["z".into()],
            attribute: vec![attribute; 4],
            ..NodeProto::default()
        };
        let tensor = TensorProto { dims: vec![2, 3], raw_data: vec![0; 24], ..TensorProto::default() };
        let graph = GraphProto { node: vec![node; 3], initializer: vec![tensor; 2], ..GraphProto::default() };
        let model = ModelProto { ir_version: 8, graph: Some(graph), ..ModelProto::default() };
        assert_eq!(structure_bytes(&model.encode_to_vec()), weighed(&model));
    }

    #[test]
    fn small_files_of_empty_messages_weigh_what_they_become() {
        let graph = GraphProto { node: vec![NodeProto::default(); 100_000], ..GraphProto::default() };
        let bytes = ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec();
        assert!(bytes.len() < 210_000);
        assert!(structure_bytes(&bytes) > 100_000 * size_of::<NodeProto>() as u64);
    }

    #[test]
    fn broken_bytes_are_weighed_as_far_as_they_go() {
        for bytes in
            [&[0xffu8; 20][..], &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f], &[0x3b], &[0x3a, 5, 0x0a], &[]]
        {
            assert!(structure_bytes(bytes) <= 10_000);
        }
    }
}
