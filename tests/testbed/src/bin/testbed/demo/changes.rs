//! Changes that the stream carries, and a re-export by hand.

use serde_json::{Value, json};
use testbed::proxy::query_config_key;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::stage::{Checked, Demo, index, reads};

const SHOP: &str = "acme.myshopify.com";
const ID: &str = "acme-products";

pub async fn play(demo: &Demo) -> Checked {
    insert(demo).await?;
    change(demo).await?;
    switch_off(demo).await?;
    query_configs(demo).await?;
    legacy(demo).await?;
    default_config(demo).await?;
    malformed(demo).await?;
    re_export(demo).await
}

/// The item of most steps; `doc_reads` and `feature_flags` are what they change.
pub fn products(doc_reads: Value, feature_flags: Value) -> Value {
    let doc_writes = json!({"enabled": true, "targets": [{"index_id": ID}]});
    index(
        "products",
        json!({
            "shop_id": SHOP,
            "pixel_id": "px-1",
            "search_config": {"limit": 24, "boost": 1.5, "fields": ["title", "tags"]},
            "collections_config": {"default_sort": null},
            "feature_flags": feature_flags,
            "index_aliases": {"doc_reads": doc_reads, "doc_writes": doc_writes},
            "create_index_config": {"not": "for the edge"},
        }),
    )
}

async fn insert(demo: &Demo) -> Checked {
    demo.step("1. An index is created");
    let item = products(reads(true, "acme-products-v2"), json!({"facets": true}));
    let carried = demo.carry(|| demo.put(&item)).await?;
    demo.exported(SETTINGS, SHOP, "stream")?;
    let value = demo.stored(SETTINGS, SHOP)?.value;
    // Byte for byte: the order of the fields, and of the keys inside, is part of the contract.
    let expected = concat!(
        r#"{"system_account_id":"acme","index_name":"products","shop_id":"acme.myshopify.com","#,
        r#""marqo_api_key":"key-acme","index_url":"https://products.example.com","#,
        r#""search_config":{"boost":1.5,"fields":["title","tags"],"limit":24},"#,
        r#""collections_config":{"default_sort":null},"feature_flags":{"facets":true},"#,
        r#""pixel_id":"px-1","index_aliases":{"doc_reads":{"enabled":true,"#,
        r#""targets":[{"index_id":"acme-products-v2","internal":false,"weight":1.0}]}}}"#,
    );
    demo.check("the value is what the proxy expects, byte for byte", value == expected)?;
    demo.check("the index id has the same value", demo.stored(SETTINGS, ID)?.value == value)?;
    let pairs: Vec<_> = carried.requests.iter().map(|request| request.pairs).collect();
    demo.check("one request wrote both keys", pairs == [2])
}

async fn change(demo: &Demo) -> Checked {
    demo.step("2. It is changed twice in one batch");
    let target = "acme-products-v2";
    let carried = demo
        .carry(|| {
            demo.put(&products(reads(true, target), json!({"facets": false})));
            demo.put(&products(reads(true, target), json!({"facets": "beta"})));
        })
        .await?;
    let flags = demo.exported(SETTINGS, SHOP, "stream")?["feature_flags"].clone();
    demo.check("KV holds the last version", flags == json!({"facets": "beta"}))?;
    let written: usize = carried.requests.iter().map(|request| request.pairs).sum();
    demo.check("and nothing else was written", written == 2)
}

async fn switch_off(demo: &Demo) -> Checked {
    demo.step("3. Its alias is switched off, the emergency rollback");
    let item = products(reads(false, "acme-products-v2"), json!({"facets": "beta"}));
    demo.carry(|| demo.put(&item)).await?;
    let value = demo.exported(SETTINGS, SHOP, "stream")?;
    let doc_reads = &value["index_aliases"]["doc_reads"];
    demo.check("the alias is off at the edge", doc_reads["enabled"] == false)?;
    let target = &doc_reads["targets"][0]["index_id"];
    demo.check("and keeps its target", target == "acme-products-v2")
}

async fn query_configs(demo: &Demo) -> Checked {
    demo.step("4. Two query configs are added");
    let queries = ["red shoes", "größe #42"];
    let item = |query: &str| {
        let sk = format!("INDEX#products#QUERY#{query}");
        json!({"pk": "acme", "sk": sk, "pinned": ["sku-1"], "score": 0.25})
    };
    demo.carry(|| queries.iter().for_each(|query| demo.put(&item(query)))).await?;
    for query in queries {
        let key = query_config_key("acme", "products", query);
        let value = demo.exported(QUERY_CONFIGS, &key, "stream")?;
        let expected = json!({
            "system_account_id": "acme", "index_name": "products", "normalized_query": query,
            "pinned": ["sku-1"], "score": 0.25,
        });
        demo.check(&format!("the key of {query:?} holds its hash"), value == expected)?;
    }
    Ok(())
}

async fn legacy(demo: &Demo) -> Checked {
    demo.step("5. A legacy record, with read_alias and without shop_id");
    let more = json!({
        "read_alias": ID,
        "index_aliases": {"doc_reads": reads(false, "acme-other"), "analytics": {"enabled": true}},
    });
    demo.carry(|| demo.put(&index("legacy", more))).await?;
    let value = demo.exported(SETTINGS, "acme-legacy", "stream")?;
    let expected = json!({
        "doc_reads": {
            "enabled": true, "targets": [{"index_id": ID, "internal": false, "weight": 1.0}],
        },
        "analytics": {"enabled": true, "index_id": null, "internal": false},
    });
    demo.check("read_alias became doc_reads", value["index_aliases"] == expected)
}

async fn default_config(demo: &Demo) -> Checked {
    demo.step("6. The account's default config");
    let item = json!({"pk": "acme", "sk": "INDEX#DEFAULT_CONFIG", "search_config": {"limit": 10}});
    let carried = demo.carry(|| demo.put(&item)).await?;
    demo.check("nothing is sent for it", carried.requests.is_empty())
}

async fn malformed(demo: &Demo) -> Checked {
    demo.step("7. Two broken records in one batch with a good one");
    let before = demo.keys();
    let mut heavy = reads(true, ID);
    heavy["targets"][0]["weight"] = json!(7);
    let heavy = index("heavy", json!({"index_aliases": {"doc_reads": heavy}}));
    let mut homeless = index("homeless", json!({}));
    homeless["index_endpoint"].take();
    let carried = demo
        .carry(|| {
            demo.put(&heavy);
            demo.put(&index("good", json!({})));
            demo.put(&homeless);
        })
        .await?;
    let told = |what: &str| carried.warnings.iter().any(|text| text.contains(what));
    demo.check("the weight of 7 is logged", told("weight"))?;
    demo.check("so is the missing endpoint", told("index_endpoint"))?;
    let mut expected = before;
    expected.push("acme-good".to_owned());
    expected.sort();
    demo.check("the good record alone reached KV", demo.keys() == expected)
}

async fn re_export(demo: &Demo) -> Checked {
    demo.step("8. One index is exported again by hand, after its key was lost");
    demo.stack.kv.delete(SETTINGS, SHOP);
    let payload = json!({
        "system_account_id": "acme", "index_name": "products", "include_query_configs": true,
    });
    let report = demo.invoke(payload).await?.answer()?;
    demo.check("the report says exported", report["outcome"] == "exported")?;
    let query_configs = json!({"exported": 2, "rejected": 0});
    demo.check("with both query configs", report["query_configs"] == query_configs)?;
    demo.exported(SETTINGS, SHOP, "re-export")?;
    let unknown = json!({"system_account_id": "acme", "index_name": "unknown"});
    let refused = demo.invoke(unknown).await?.result;
    let kind = refused.err().map(|failure| failure.error_type);
    demo.check("an index that does not exist is an error", kind.as_deref() == Some("IndexNotFound"))
}
