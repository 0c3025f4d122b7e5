//! Mutation of the JSON tree, so that most inputs get far into a decoder, and of the bytes.

use fastrand::Rng;
use serde_json::{Value, json};

use crate::seeds::Target;

const TOKENS: &[&str] = &[
    "null",
    "{}",
    "[]",
    "\"\"",
    "0",
    "-0",
    "1e999",
    "18446744073709551616",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "{\"S\":\"\"}",
    "{\"N\":\"NaN\"}",
    "{\"N\":\"1e-400\"}",
    "{\"NULL\":false}",
    "{\"M\":{}}",
    "{\"L\":[{\"M\":{}}]}",
    "{\"SS\":[\"a\",\"a\"]}",
    "{\"NS\":[\"x\"]}",
    "{\"B\":\"!\"}",
    "{\"S\":\"a\",\"N\":\"1\"}",
    "INDEX#",
    "#QUERY#",
    "DEFAULT_CONFIG",
    "://",
    "\u{0}",
    "\u{feff}",
    "\u{202e}",
    "🦀",
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
];

type Seeds = [(Target, Value)];

/// The input with this number, and its target.
pub fn input(seeds: &Seeds, number: u64) -> (Target, String) {
    let mut rng = Rng::with_seed(number);
    let (target, mut tree) = seed(&mut rng, seeds).clone();
    for _ in 0..rng.usize(0..6) {
        mutate_tree(&mut rng, &mut tree, seeds);
    }
    let mut text = tree.to_string();
    if rng.u8(..) < 100 {
        for _ in 0..rng.usize(1..4) {
            text = mutate_bytes(&mut rng, text);
        }
    }
    (target, text)
}

/// A seed. Whole events are slow and add little, so they are rare.
fn seed<'a>(rng: &mut Rng, seeds: &'a Seeds) -> &'a (Target, Value) {
    loop {
        let seed = &seeds[rng.usize(..seeds.len())];
        if seed.0 != Target::Payload || rng.u8(..8) == 0 {
            return seed;
        }
    }
}

/// Changes one node, chosen on a random walk from the root.
fn mutate_tree(rng: &mut Rng, node: &mut Value, seeds: &Seeds) {
    let descend = rng.u8(..) < 210;
    match node {
        Value::Object(fields) if descend && !fields.is_empty() => {
            let place = rng.usize(..fields.len());
            let name = fields.keys().nth(place).cloned().unwrap_or_default();
            match rng.u8(..16) {
                0 => {
                    fields.remove(&name);
                }
                1 => {
                    let value = fields.remove(&name).unwrap_or_default();
                    fields.insert(some_name(rng), value);
                }
                2 => {
                    fields.insert(some_name(rng), some_value(rng, seeds));
                }
                _ => {
                    if let Some(value) = fields.get_mut(&name) {
                        mutate_tree(rng, value, seeds);
                    }
                }
            }
        }
        Value::Array(items) if descend && !items.is_empty() => {
            let place = rng.usize(..items.len());
            match rng.u8(..16) {
                0 => {
                    items.remove(place);
                }
                1 => items.push(items[place].clone()),
                2 => items.insert(place, some_value(rng, seeds)),
                _ => mutate_tree(rng, &mut items[place], seeds),
            }
        }
        Value::String(text) if descend => match rng.u8(..4) {
            0 => text.push_str(TOKENS[rng.usize(..TOKENS.len())]),
            1 => *text = text.repeat(rng.usize(..40)),
            2 => *text = text.chars().rev().collect(),
            _ => *text = mutate_bytes(rng, std::mem::take(text)),
        },
        other => *other = some_value(rng, seeds),
    }
}

fn some_name(rng: &mut Rng) -> String {
    // The last name is empty.
    const NAMES: &str = "S,N,M,L,BOOL,NULL,B,SS,NS,BS,Records,dynamodb,Keys,NewImage,OldImage,\
        SequenceNumber,shop_id,cell,index_aliases,read_alias,doc_reads,targets,weight,\
        search_config,reconcile,apply,index_name,";
    let names: Vec<&str> = NAMES.split(',').collect();
    names[rng.usize(..names.len())].to_owned()
}

fn some_value(rng: &mut Rng, seeds: &Seeds) -> Value {
    match rng.u8(..10) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => json!(rng.i64(..)),
        3 => json!(f64::from_bits(rng.u64(..))),
        4 => json!({"N": rng.u64(..).to_string()}),
        5 => json!({"N": f64::from_bits(rng.u64(..)).to_string()}),
        6 => deep(rng.usize(..150)),
        7 => seed(rng, seeds).1.clone(),
        8 => json!({"S": "x".repeat(rng.usize(..700))}),
        _ => json!(TOKENS[rng.usize(..TOKENS.len())]),
    }
}

/// Lists within lists. Built by hand, because `json!` would copy the inner ones each time.
fn deep(depth: usize) -> Value {
    let list =
        |inner| Value::Object([("L".to_owned(), Value::Array(vec![inner]))].into_iter().collect());
    (0..depth).fold(json!({"S": "deep"}), |inner, _| list(inner))
}

fn mutate_bytes(rng: &mut Rng, text: String) -> String {
    let mut bytes = text.into_bytes();
    let place = rng.usize(..=bytes.len());
    match rng.u8(..6) {
        0 => bytes.truncate(place),
        1 => bytes.insert(place, rng.u8(..)),
        2 if place < bytes.len() => bytes[place] ^= 1 << rng.u8(..8),
        3 => {
            let end = (place + rng.usize(..64)).min(bytes.len());
            bytes.drain(place..end);
        }
        4 => {
            let end = (place + rng.usize(..64)).min(bytes.len());
            let copy = bytes[place..end].to_vec();
            bytes.splice(place..place, copy);
        }
        _ => {
            let token = TOKENS[rng.usize(..TOKENS.len())];
            bytes.splice(place..place, token.bytes());
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
