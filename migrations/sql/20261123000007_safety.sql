-- What PBXes withhold, lest they be cut off, and how many phones a change may cost them; what they prove and what they found.
ALTER TABLE pbxes
    ADD COLUMN withheld jsonb NOT NULL DEFAULT '[]',
    -- When all that is never to be blocked was last found in the kernel, and how many ranges that was.
    ADD COLUMN proven_at timestamptz,
    ADD COLUMN proven_ranges integer NOT NULL DEFAULT 0,
    -- What was found last that wasn't as it should be.
    ADD COLUMN drift jsonb;
ALTER TABLE tenants ADD COLUMN phone_loss_limit_percent integer NOT NULL DEFAULT 20
    CONSTRAINT tenants_phone_loss_limit_check CHECK (phone_loss_limit_percent BETWEEN 0 AND 100);
