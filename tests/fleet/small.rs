//! Fleets that a debug build goes over in a second, and what the tests do with them.

use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::lambda::Handler;
use ecom_settings_exporter::ports::Namespace;
use serde_json::{Value, json};

use crate::model::{Drift, Followed, Found, ItemId, Memory, Ports, Size, World};

/// Both namespaces.
pub const NAMESPACES: [Namespace; 2] = [Namespace::Settings, Namespace::QueryConfigs];

/// What an invocation has, so that a chain has several: longer than the limit's window.
pub const SHORT: Duration = Duration::from_secs(400);

/// 30,000 keys, 2,000 of them of the settings.
pub const SIZE: Size = Size {
    accounts: 200,
    indexes: 5,
    query_configs: 28,
    cells: 5,
    drift: 100,
    seed: 1,
    settings_bytes: 100,
    query_config_bytes: 50,
    query_bytes: 0,
};

/// 6,000 keys, 400 of them of the settings.
pub const SMALL: Size = Size { accounts: 40, ..SIZE };

/// A fleet whose listings are so slow that an invocation of [`SHORT`] compares a part of them.
pub fn world(size: Size) -> World {
    let mut world = World::new(size);
    world.page_keys = 100;
    world.page_bytes = 16 * 1024;
    world.pace.list = Duration::from_secs(2);
    world
}

/// Checks that KV is what the table asks for.
pub fn assert_mended(world: &World) {
    for namespace in NAMESPACES {
        let Found { missing, stale, orphaned, .. } = world.compare(namespace);
        assert_eq!((missing, stale, orphaned), (0, 0, 0), "{namespace:?}");
    }
}

/// The first query config with this drift.
pub fn query_config_with(world: &World, drift: Drift) -> ItemId {
    let fleet = &world.fleet;
    let items = 0..fleet.indexes() * (1 + fleet.size.query_configs);
    let mut items = items.map(|position| fleet.item_at(position));
    items.find(|item| item.query.is_some() && fleet.drift(*item) == Some(drift)).expect("drift")
}

/// Changes an item in the table, and sends the change's record to the function.
pub async fn change(function: &Handler<Memory<Ports>>, world: &Rc<World>, item: ItemId) -> Value {
    let version = world.change(item);
    let fleet = &world.fleet;
    let image = fleet.item_json(item, version, false);
    let key = fleet.item_key(item);
    let now = world.now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let payload = json!({"Records": [{
        "eventID": "1",
        "eventName": "MODIFY",
        "eventSource": "aws:dynamodb",
        "dynamodb": {
            "ApproximateCreationDateTime": now.as_secs(),
            "Keys": {"pk": {"S": key.pk}, "sk": {"S": key.sk}},
            "NewImage": serde_json::from_str::<Value>(&image).expect("JSON"),
            "SequenceNumber": "1",
            "StreamViewType": "NEW_IMAGE",
        },
    }]});
    let (answer, _) = function.handle(payload.to_string(), Duration::from_secs(60)).await;
    serde_json::to_value(answer.expect("an answer")).expect("JSON")
}

/// How many times the size of a usual run the large fleets have.
#[expect(clippy::disallowed_methods, reason = "the one place where a test run is configured")]
pub fn times() -> usize {
    let given = std::env::var("FLEET_TIMES").ok();
    given.map_or(1, |text| text.parse().expect("FLEET_TIMES is a whole number"))
}

/// How many keys the brakes of a chain have refused to delete.
pub fn refused_deletes(chain: &Followed) -> u64 {
    let refused = chain.runs.iter().filter_map(|run| run["refused"]["delete"].as_u64());
    refused.sum()
}
