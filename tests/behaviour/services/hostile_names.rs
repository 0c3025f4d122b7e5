//! Names and values that try to break out of their place, and what the services got.

use std::collections::BTreeSet;

use serde_json::json;
use testbed::stack::{DEFAULT_CELL, SETTINGS};

use crate::helpers::*;

const OF_URLS: &str = "../../admin|a/b|a?key=1&x=2|a#fragment|a\r\nX-Injected: 1|a\nb|%2e%2e%2fadmin|\
                       %0d%0aX: 1|a b+c|größe 🦀|a@evil.example:80/|\\..\\admin|a;b,c\"d'e|\
                       {cell}{system_account_id}";
const OF_BODIES: [&str; 7] = [
    r#"x","value":"stolen"},{"key":"victim"#,
    "line\nbreak\r\n",
    "quote\"back\\slash",
    "../bulk/delete",
    "nul\u{0}and\u{1f}",
    "\u{2028}\u{feff}größe 🦀",
    "[]",
];

#[tokio::test]
async fn accounts_and_cells_stay_in_their_place_of_the_url() {
    let world = World::start().await;
    let spied = spy(world.stack.api_keys.faults());
    let (mut expected, mut items) = (BTreeSet::new(), Vec::new());
    for name in OF_URLS.split('|') {
        // The stand-in's default key contains the account's name, and not every name can be sent.
        world.stack.api_keys.set(name, "key");
        for (account, cell) in [(name, DEFAULT_CELL), ("plain", name), (name, name)] {
            items.push(in_cell(account, &format!("i{}", items.len()), cell));
            expected.insert((cell.to_owned(), account.to_owned()));
        }
    }

    // In a URL, these would be steps up the path.
    for name in [".", ".."] {
        items.push(in_cell(name, "i", DEFAULT_CELL));
        items.push(in_cell("plain", name, name));
    }

    world.batch_ok(all_written(&items)).await;

    let rejected = world.logs.of("record rejected").into_iter();
    let reasons: Vec<String> = rejected.map(|line| line["error"].to_string()).collect();
    assert_eq!(reasons.len(), 4);
    assert!(reasons.iter().all(|why| why.contains("can't be part of a URL")), "{reasons:?}");
    let log = world.stack.api_keys.log().into_iter();
    let asked: BTreeSet<_> = log.map(|asked| (asked.cell, asked.account)).collect();
    assert_eq!(asked, expected, "these names and no others");
    assert_eq!(spied.requests().len(), expected.len());
    for request in spied.requests() {
        assert_eq!((request.path.split('/').count(), request.query.as_str()), (6, ""));
        let mut headers: Vec<_> = request.headers.keys().map(|name| name.as_str()).collect();
        headers.sort_unstable();
        assert_eq!(headers, ["accept", "host", "user-agent"]);
    }
}

#[tokio::test]
async fn keys_and_values_reach_kv_as_they_are_and_bring_no_others() {
    let world = World::start().await;
    let api_key = r#"k","index_url":"https://evil.example"#;
    world.stack.api_keys.set("a", api_key);
    let item = |name: &str| {
        let more =
            json!({"shop_id": name, "index_endpoint": "https://h", "search_config": {name: name}});
        index_with("a", name, more)
    };
    let items: Vec<_> = OF_BODIES
        .into_iter()
        .flat_map(|name| [item(name), query_config("a", name, name, 1)])
        .collect();

    world.settled_with(items.clone()).await;

    let mut expected: Vec<String> =
        OF_BODIES.iter().flat_map(|name| [(*name).to_owned(), format!("a-{name}")]).collect();
    expected.sort();
    assert_eq!(world.setting_keys(), expected);
    assert_eq!(world.query_config_keys().len(), OF_BODIES.len());
    for name in OF_BODIES {
        let value = json!({
            "system_account_id": "a", "index_name": name, "shop_id": name, "marqo_api_key": api_key,
            "index_url": "https://h", "search_config": {name: name},
        });
        assert_eq!(world.setting(name).unwrap(), value);
        let metadata = world.stack.kv.get(SETTINGS, name).unwrap().metadata.unwrap();
        assert_eq!(metadata["index_name"], name);
    }

    items.iter().for_each(|item| world.remove(item));
    world.deliver().await;
    assert_eq!((world.setting_keys().len(), world.query_config_keys().len()), (0, 0));
}
