"""Keys and passwords are shown as dots, whatever way they are written; all else is as it was."""

import pytest

from atoll.doctor.masks import mask_secrets
from atoll.doctor.mend import Mended


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("HF_TOKEN: hf_abcdefghijklmnopqrstuvwxyz0123456789", "HF_TOKEN: •••"),
        ("- MONGO_PASSWORD=geheim123", "- MONGO_PASSWORD=•••"),
        ('POSTGRES_PASSWORD: "p a"', 'POSTGRES_PASSWORD: "p a"'),
        ("      master_key: sk-1234", "      master_key: •••"),
        ("VLLM_API_KEY='super-secret'", "VLLM_API_KEY='•••'"),
        ('command: ["m", "--api-key", "my-very-secret-key"]', 'command: ["m", "--api-key", "•••"]'),
        ("command: m --api-key my-very-secret-key --port 8000", "command: m --api-key ••• --port 8000"),
        ("url: mongodb://root:geheim@mongo:27017/app", "url: mongodb://root:•••@mongo:27017/app"),
        ('proxy_set_header Authorization "Bearer local-key";', 'proxy_set_header Authorization "Bearer •••";'),
        ("proxy_set_header X-Api-Key geheim123;", "proxy_set_header X-Api-Key •••;"),
        ('set $api_key "geheim123";', 'set $api_key "•••";'),
        ("proxy_set_header X-Api-Key $http_x_api_key;", "proxy_set_header X-Api-Key $http_x_api_key;"),
        ("PASSWORD: ${PASSWORD:-geheim123}", "PASSWORD: ${PASSWORD:-•••}"),
        ("  - --api-key\n  - my-very-secret-key", "  - --api-key\n  - •••"),
        ('HF_TOKEN: "two words"', 'HF_TOKEN: "•••"'),
        ("API_KEY: 'it has \"quotes\" and blanks'", "API_KEY: '•••'"),
        ('- "MONGO_PASSWORD=two words"', '- "MONGO_PASSWORD=•••"'),
        ("MONGO_PASSWORD: two words  # of the lab", "MONGO_PASSWORD: •••  # of the lab"),
        ("{API_KEY: two words, PORT: 8000}", "{API_KEY: •••, PORT: 8000}"),
        ("docker run -e API_KEY='two words' image", "docker run -e API_KEY='•••' image"),
        ("docker run -e API_KEY=geheim123 image", "docker run -e API_KEY=••• image"),
        ('["--api-key", "two words"]', '["--api-key", "•••"]'),
        ('set $api_key "two words";', 'set $api_key "•••";'),
        ("PASSWORD: ${PASSWORD:-two words}", "PASSWORD: ${PASSWORD:-•••}"),
        ("- traefik.x.users=admin:$$apr1$$H6uskkkW$$IgXLP6ewTrSuBkTrqE8wj/", "- traefik.x.users=admin:•••"),
        ("basic_auth u $2y$05$aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789aBcDeFgHiJkLmNoPqRs", "basic_auth u •••"),
        # what is none
        ("rewrite ^/(a)/(b)$ /$1$2 break;", "rewrite ^/(a)/(b)$ /$1$2 break;"),
        ("HF_TOKEN: ${HF_TOKEN:?put HF_TOKEN into .env}", "HF_TOKEN: ${HF_TOKEN:?put HF_TOKEN into .env}"),
        ("MONGO_PASSWORD_FILE: /run/secrets/mongo", "MONGO_PASSWORD_FILE: /run/secrets/mongo"),
        ("- --max-num-batched-tokens\n- '8192'", "- --max-num-batched-tokens\n- '8192'"),
        ("image: vllm/vllm-openai:v0.33.0", "image: vllm/vllm-openai:v0.33.0"),
        ("proxy_pass http://vllm:8000;", "proxy_pass http://vllm:8000;"),
        ("  --max-tokens 4096", "  --max-tokens 4096"),
    ],
)
def test_secrets_become_dots(text: str, shown: str):
    assert mask_secrets(text) == shown


def test_a_diff_shows_no_secret_that_stands_near_what_changed():
    before = "environment:\n  API_KEY: abcdefgh1234\nshm: 1\n"
    diff = Mended(path="compose.yaml", before=before, after=before.replace("shm: 1", "shm: 2")).diff
    assert "abcdefgh1234" not in diff
    assert "-shm: 1\n+shm: 2\n" in diff
