<?php
// Calls everything with PHP's SoapClient: client.php VERSION URL, or client.php VERSION URL USER PASSWORD
[, $version, $url, $user, $password] = $argv + [3 => null, 4 => null];
const OASIS = 'http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss';
ini_set('soap.wsdl_cache_enabled', '0');
error_reporting(E_ALL);

function same(mixed $found, mixed $expected, string $what): void {
    if ($found !== $expected) {
        fwrite(STDERR, "$what: " . var_export($found, true) . ' instead of ' . var_export($expected, true) . "\n");
        exit(1);
    }
}

$client = new SoapClient("$url?wsdl", [
    'soap_version' => $version === '1.1' ? SOAP_1_1 : SOAP_1_2,
    'features' => SOAP_SINGLE_ELEMENT_ARRAYS,
    'exceptions' => true,
    'trace' => true,
    'cache_wsdl' => WSDL_CACHE_NONE,
    'keep_alive' => false,
]);

// A username token, as text or as a digest of nonce, time and password.
function token(string $user, string $password, bool $isDigest): SoapHeader {
    $nonce = random_bytes(16);
    $created = gmdate('Y-m-d\TH:i:s\Z');
    $shown = $isDigest ? base64_encode(sha1($nonce . $created . $password, true)) : $password;
    $xml = '<w:Security xmlns:w="' . OASIS . '-wssecurity-secext-1.0.xsd" xmlns:u="' . OASIS . '-wssecurity-utility-1.0.xsd">'
        . "<w:UsernameToken><w:Username>$user</w:Username>"
        . '<w:Password Type="' . OASIS . '-username-token-profile-1.0#Password' . ($isDigest ? 'Digest' : 'Text') . "\">$shown</w:Password>"
        . '<w:Nonce>' . base64_encode($nonce) . "</w:Nonce><u:Created>$created</u:Created></w:UsernameToken></w:Security>";
    return new SoapHeader(OASIS . '-wssecurity-secext-1.0.xsd', 'Security', new SoapVar($xml, XSD_ANYXML), true);
}

if ($user !== null) {
    foreach ([false, true] as $isDigest) {
        $client->__setSoapHeaders([token($user, $password, $isDigest)]);
        same($client->Who()->username, $user, 'who');
        $client->__setSoapHeaders([token($user, $password . 'x', $isDigest)]);
        try {
            $client->Who();
            same('an answer', 'a fault', 'a wrong password');
        } catch (SoapFault) {
            same(str_contains($client->__getLastResponse(), 'FailedAuthentication'), true, 'the fault');
        }
    }
    exit(0);
}

$bytes = implode('', array_map('chr', range(0, 255)));
$given = [
    'text' => 'Zoë & <sons>', 'whole' => -7, 'ratio' => 1.5, 'flag' => true, 'price' => '12.50',
    'day' => '2024-02-29', 'moment' => '2024-02-29T12:30:15Z', 'pause' => 90.5,
    'id' => '00000000-0000-0000-0000-000000000005', 'content' => $bytes, 'kind' => 'trade', 'nothing' => null,
    'main' => ['sku' => 'a', 'quantity' => 2], 'tags' => ['x', '', 'y z'],
    'lines' => [['sku' => 'b', 'quantity' => 3], ['sku' => 'c']],
];
$answer = $client->Echo($given);
foreach (['text', 'whole', 'ratio', 'flag', 'price', 'day', 'pause', 'id', 'content', 'kind', 'nothing', 'tags'] as $name) {
    same($answer->$name, $given[$name], $name);
}
same(strtotime($answer->moment), strtotime($given['moment']), 'moment');
same([$answer->main->sku, $answer->main->quantity], ['a', 2], 'main');
same(array_map(fn($line) => [$line->sku, $line->quantity], $answer->lines), [['b', 3], ['c', 1]], 'lines');
same(isset($answer->optional), false, 'optional');
$answer = $client->Echo(['nothing' => 'something', 'optional' => 'there', 'tags' => [], 'lines' => []] + $given);
same([$answer->nothing, $answer->optional], ['something', 'there'], 'texts');
same([isset($answer->tags), isset($answer->lines)], [false, false], 'empty lists');

$line = ['sku' => 'a', 'quantity' => 2];
$given = [
    'small' => 7, 'size' => 'm', 'at' => '10:30:15', 'numbers' => [1, PHP_INT_MIN, PHP_INT_MAX], 'ratios' => [0.5, -1e300],
    'flags' => [true, false], 'prices' => ['0.10', '12345678901234567890.5'], 'moments' => ['2024-02-29T12:30:15Z'],
    'orders' => [
        ['customer' => ['name' => 'Zoë', 'address' => ['street' => 'A', 'floor' => 3]], 'lines' => [$line, $line]],
        ['customer' => ['name' => 'Bob', 'address' => ['street' => 'B']], 'lines' => []],
    ],
];
$answer = $client->Nest($given);
foreach (['small', 'size', 'at', 'numbers', 'ratios', 'flags', 'prices'] as $name) {
    same($answer->$name, $given[$name], $name);
}
same(array_map(strtotime(...), $answer->moments), array_map(strtotime(...), $given['moments']), 'moments');
[$first, $second] = $answer->orders;
same([$first->customer->name, $first->customer->address->floor, count($first->lines)], ['Zoë', 3, 2], 'the first order');
same([$second->customer->address->street, isset($second->customer->address->floor), isset($second->lines)], ['B', false, false],
    'the second order');

$blob = str_repeat($bytes, 400);
same($client->Store(['content' => $blob])->content === strrev($blob), true, 'a binary');
try {
    $client->Refuse(['text' => 'because']);
    same('an answer', 'a fault', 'Refuse');
} catch (SoapFault $fault) {
    same($fault->getMessage(), 'because', 'the fault');
    same((int) $fault->detail->ServiceFault->status, 409, 'the status');
}
$client->Notify(['text' => "php $version"]);
$client->__setSoapHeaders([new SoapHeader('urn:example:matrix', 'Session', 's-1')]);
$answer = $client->Who();
same([$answer->version, $answer->session], [$version, 's-1'], 'who');
echo "done\n";
