//! Deleted items: their keys go, or stay.

use serde_json::json;
use testbed::stack::SETTINGS;

use super::changes;
use super::stage::{Checked, Demo, index, reads};

pub async fn play(demo: &Demo) -> Checked {
    unneeded(demo).await?;
    needed(demo).await
}

async fn unneeded(demo: &Demo) -> Checked {
    demo.step("12. An index is deleted");
    let shop = "gone.myshopify.com";
    let item = index("gone", json!({"shop_id": shop}));
    demo.carry(|| demo.put(&item)).await?;
    demo.exported(SETTINGS, shop, "stream")?;
    demo.carry(|| demo.delete("acme", "INDEX#gone")).await?;
    for key in [shop, "acme-gone"] {
        let gone = demo.stack.kv.get(SETTINGS, key).is_none();
        demo.check(&format!("{key} is gone"), gone)?;
    }
    Ok(())
}

async fn needed(demo: &Demo) -> Checked {
    demo.step("13. An index is deleted, but an active alias points at it");
    let shop = "v2.myshopify.com";
    let target = index("products-v2", json!({"shop_id": shop}));
    let pointing = changes::products(reads(true, "acme-products-v2"), json!({}));
    demo.carry(|| {
        demo.put(&target);
        demo.put(&pointing);
    })
    .await?;
    let carried = demo.carry(|| demo.delete("acme", "INDEX#products-v2")).await?;
    for key in [shop, "acme-products-v2"] {
        let stays = demo.stack.kv.get(SETTINGS, key).is_some();
        demo.check(&format!("{key} stays"), stays)?;
    }
    // The keys contain the name of the deleted index, so those mentions do not count.
    let told = |text: &String| text.replace("products-v2", "").contains("products");
    let told = carried.warnings.iter().any(told);
    demo.check("and the log says who points at it", told)
}
