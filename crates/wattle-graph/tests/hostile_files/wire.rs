//! Protobuf messages as trees of fields, so that mutations keep their framing and reach what lies behind it.

use super::Dice;

/// One field: its number, and what it holds.
#[derive(Clone)]
pub struct Field {
    number: u64,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Varint(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

/// Numbers that programs get wrong.
const NUMBERS: [i64; 16] = [0, 1, 2, 3, 4, 7, 13, 16, -1, -2, -3, 255, 1 << 31, 1 << 40, i64::MAX, i64::MIN];

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(head)
}

/// The fields of a message; bytes that could be a message are taken for one.
pub fn parse(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = vec![];
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = key >> 3;
        if !(1..=30).contains(&number) {
            return None;
        }
        let content = match key & 7 {
            0 => Content::Varint(varint(&mut bytes)?),
            1 => Content::Fixed(take(&mut bytes, 8)?.to_vec()),
            5 => Content::Fixed(take(&mut bytes, 4)?.to_vec()),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let inner = take(&mut bytes, length)?;
                match parse(inner).filter(|fields| !fields.is_empty()) {
                    Some(fields) => Content::Message(fields),
                    None => Content::Bytes(inner.to_vec()),
                }
            }
            _ => return None,
        };
        fields.push(Field { number, content });
    }
    Some(fields)
}

/// The bytes of a message.
pub fn serialise(fields: &[Field]) -> Vec<u8> {
    let mut bytes = vec![];
    for field in fields {
        let (kind, content) = match &field.content {
            Content::Varint(value) => {
                put_varint(field.number << 3, &mut bytes);
                put_varint(*value, &mut bytes);
                continue;
            }
            Content::Fixed(content) => {
                put_varint(field.number << 3 | if content.len() == 8 { 1 } else { 5 }, &mut bytes);
                bytes.extend(content);
                continue;
            }
            Content::Bytes(content) => (2, content.clone()),
            Content::Message(fields) => (2, serialise(fields)),
        };
        put_varint(field.number << 3 | kind, &mut bytes);
        put_varint(content.len() as u64, &mut bytes);
        bytes.extend(content);
    }
    bytes
}

fn count(fields: &[Field]) -> usize {
    let below = |f: &Field| if let Content::Message(inner) = &f.content { count(inner) } else { 0 };
    fields.len() + fields.iter().map(below).sum::<usize>()
}

/// Calls `act` with the list and position of field number `index`, counted depth first.
fn at(fields: &mut Vec<Field>, index: &mut usize, act: &mut dyn FnMut(&mut Vec<Field>, usize)) -> bool {
    for position in 0..fields.len() {
        if *index == 0 {
            act(fields, position);
            return true;
        }
        *index -= 1;
        if let Content::Message(inner) = &mut fields[position].content
            && at(inner, index, act)
        {
            return true;
        }
    }
    false
}

/// A field of `fields`, preferably one with this number.
fn pick(fields: &mut Vec<Field>, number: u64, dice: &mut Dice) -> Option<Field> {
    let total = count(fields);
    let mut found = None;
    for _ in 0..20 {
        let mut index = dice.below(total);
        at(fields, &mut index, &mut |list, position| found = Some(list[position].clone()));
        if found.as_ref().is_some_and(|f: &Field| f.number == number) {
            break;
        }
    }
    found
}

/// Changes one field somewhere: a number, a text, its place, or the field of the same kind of another file.
pub fn mutate(fields: &mut Vec<Field>, other: &mut Vec<Field>, dice: &mut Dice) {
    let mut own = fields.clone();
    let mut index = dice.below(count(fields));
    at(fields, &mut index, &mut |list, position| {
        let number = list[position].number;
        match dice.below(8) {
            0 => drop(list.remove(position)),
            1 => list.insert(position, list[position].clone()),
            2 => {
                let to = dice.below(list.len());
                list.swap(position, to);
            }
            3 => list[position] = pick(other, number, dice).unwrap_or_else(|| list[position].clone()),
            4 => list[position] = pick(&mut own, number, dice).unwrap_or_else(|| list[position].clone()),
            _ => change(&mut list[position].content, dice),
        }
    });
}

fn change(content: &mut Content, dice: &mut Dice) {
    let odd = NUMBERS[dice.below(NUMBERS.len())] as u64;
    match content {
        Content::Varint(value) => *value = odd,
        Content::Fixed(bytes) => {
            let float = [0.0f32, -1.0, 1e30, f32::NAN, f32::INFINITY, 0.3][dice.below(6)];
            bytes.iter_mut().zip(float.to_le_bytes()).for_each(|(b, new)| *b = new);
        }
        Content::Message(_) => {}
        Content::Bytes(bytes) if bytes.len() % 8 == 0 && dice.below(2) == 0 => {
            // As a 64-bit integer of raw data: shapes, axes, indices.
            let place = dice.below(bytes.len() / 8) * 8;
            bytes.iter_mut().skip(place).zip(odd.to_le_bytes()).for_each(|(b, new)| *b = new);
        }
        Content::Bytes(bytes) => {
            // As packed integers: extents, pads, permutations.
            let mut rest = &bytes[..];
            let mut numbers = vec![];
            while let Some(value) = varint(&mut rest) {
                numbers.push(value);
            }
            let place = dice.below(numbers.len());
            match (dice.below(3), numbers.get_mut(place)) {
                (0, _) => numbers.push(odd),
                (1, Some(_)) => drop(numbers.remove(place)),
                (_, Some(value)) => *value = odd,
                (_, None) => numbers.push(odd),
            }
            bytes.clear();
            numbers.into_iter().for_each(|value| put_varint(value, bytes));
        }
    }
}
