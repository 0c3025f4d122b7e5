//! What is said of an index, a key or an account.

use ecom_settings_exporter::item::keys::is_query_config_key;
use ecom_settings_exporter::kv::StoredValue;
use ecom_settings_exporter::ports::ErrorKind;

use super::*;
use crate::fakes::{KvFault, api_keys_error, entry, index, kv_error, shop};

/// Returns services with these items, and with the value of an index, or of query config `q`, under a key.
fn world(items: &[Tried], held: Option<(&str, &str)>) -> Fakes {
    let fakes = Fakes::new();
    for Tried { key, item } in items {
        fakes.table.put((key.clone(), item.clone().unwrap()));
    }
    if let Some((key, name)) = held {
        let fields = match is_query_config_key(key) {
            true => json!({"normalized_query": "q", "x": 1}),
            false => json!({"index_url": "https://h", "marqo_api_key": "k"}),
        };
        let mut value = json!({"system_account_id": "a", "index_name": name});
        value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        fakes.kv.hold_entry(key, &entry(name, &value));
    }
    fakes
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_an_index_or_a_key() {
    let by_index = Subject::Index(index("i"));
    let (i, points) = (save("i", shop("s")), save("x", read_alias("a-i")));
    let broken = save("i", json!({"index_endpoint": null}));
    let names_o = save("x", write_alias("shop_id", "o"));
    let others = ["jj", "j", "ij", "iijj"].map(|name| save(name, json!({})));
    let x = |number: Value| vec![save_config(&json!({ "x": number }))];
    let (q, r) = (config_key("q"), config_key("r"));
    let (own, of_q) = (Some(("a-i", "i")), Some((&*q, "i")));
    let unknown = |what: &str| {
        format!("neither the table nor KV knows {what}, and no active alias points at it")
    };
    let none = unknown("index a/i") + "; the account has no index";
    let near = unknown("index a/i") + "; the account has ij, j, jj";
    for (subject, items, held, expected) in [
        (&by_index, vec![], None, &*none),
        (&by_index, others.to_vec(), None, &near),
        (&by_index, vec![points.clone()], None, "absent; <- x"),
        (&by_index, vec![i.clone()], None, "s missing; a-i missing"),
        (&by_index, vec![i.clone()], own, "s missing; a-i stale shop_id"),
        (&by_index, vec![broken], own, "rejected; a-i rejected"),
        (&by_index, vec![], own, "absent; a-i orphaned"),
        (&by_index, vec![points.clone()], own, "absent; a-i withheld; <- x"),
        (&key("s"), vec![], None, &unknown("key \"s\"")),
        (&key("s"), vec![i.clone()], None, "s missing; a-i missing"),
        (&key("s"), vec![i.clone()], Some(("s", "j")), "absent; s stale index_name shop_id"),
        (&key("s"), vec![i.clone()], Some(("s", "i")), "s stale shop_id; a-i missing"),
        (&key("o"), vec![i.clone()], Some(("o", "i")), "s missing; a-i missing; o orphaned"),
        (&key("a-i"), vec![points], None, "absent; a-i foreign; <- x"),
        (
            &key("o"),
            vec![i.clone(), names_o],
            Some(("o", "i")),
            "s missing; a-i missing; o withheld; <- x",
        ),
        (&key(&q), vec![], None, &unknown(&format!("key {q:?}"))),
        (&key(&q), x(json!({"N": "1"})), None, "q missing"),
        (&key(&q), vec![], of_q, "absent; q orphaned"),
        (&key(&q), x(json!({"N": "1"})), of_q, "q right"),
        (&key(&q), x(json!({"N": "2"})), of_q, "q stale x"),
        (&key(&q), x(json!({"Q": 2})), of_q, "rejected; q rejected"),
        (&key(&r), x(json!({"N": "1"})), Some((&r, "i")), &format!("absent; {r} orphaned")),
    ] {
        let fakes = world(&items, held);
        assert_eq!(said(&ask(&fakes, subject).await), expected, "{subject} {held:?}");
        assert_eq!(fakes.kv.keys().len(), held.iter().len(), "nothing is changed");
    }
    for (name, held, expected) in [
        ("o", Some(("o", "i")), "rejected; s rejected; a-i rejected; o rejected"),
        (&q, of_q, "absent; q rejected"),
    ] {
        let without_api_key = world(std::slice::from_ref(&i), held);
        without_api_key.api_keys.faults.then([api_keys_error(ErrorKind::NotFound)]);
        assert_eq!(said(&ask(&without_api_key, &key(name)).await), expected);
    }
    let unnamed = |owner: &str| entry(owner, &json!({}));
    let bare = StoredValue { metadata: None, ..unnamed("i") };
    let config = "q stale index_name normalized_query system_account_id x";
    let settings =
        "s stale index_name index_url marqo_api_key shop_id system_account_id; a-new missing";
    for (name, stored, item, expected) in [
        (&*q, unnamed("i"), save_config(&json!({"x": {"N": "1"}})), config),
        (&q, bare, save_config(&json!({"x": {"N": "1"}})), config),
        ("s", unnamed("old"), save("new", shop("s")), settings),
    ] {
        let fakes = world(&[item], None);
        fakes.kv.hold_entry(name, &stored);
        assert_eq!(said(&ask(&fakes, &key(name)).await), expected, "{stored:?}");
    }
    let mut fakes = world(&[i, save("j", shop("s"))], own);
    let report = ask(&fakes, &key("s")).await.unwrap();
    let named = ["i", "j"].map(|it| json!({"system_account_id": "a", "index_name": it}));
    assert_eq!(report["keys"][0]["claimed_by"], json!(named));
    fakes.kv.faults.then([KvFault::Fails(kv_error(ErrorKind::Refused))]);
    let refused = "key \"s\" can't be explained: key \"s\": Cloudflare KV: scripted";
    assert_eq!(said(&ask(&fakes, &key("s")).await), refused);
    fakes.kv.hold("f", &json!({}));
    assert_eq!(said(&ask(&fakes, &key("f")).await), "absent; f foreign");
    fakes.0.config.environment = "dev".to_owned();
    assert_eq!(said(&ask(&fakes, &by_index).await), "s missing; a-i conflicting shop_id");
}

#[tokio::test(start_paused = true)]
async fn a_part_of_an_account_ends_with_the_index_after_which_the_next_one_begins() {
    // KV can't hold the index id of the first.
    let long = "0".repeat(511);
    let names = [long].into_iter().chain((0..301).map(|number| format!("i{number:03}")));
    let items: Vec<_> = names.map(|name| save(&name, json!({}))).collect();
    let subject = Subject::Account { account: "a".to_owned(), after: None };
    let report = ask(&world(&items, None), &subject).await.unwrap();
    let indexes = report["indexes"].as_array().unwrap();
    assert_eq!((indexes.len(), &report["continue"]), (300, &json!("i298")));
}
