<?php
// Calls everything with PHP's SoapClient: client.php VERSION URL
[, $version, $url] = $argv;
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
    'cache_wsdl' => WSDL_CACHE_NONE,
    'keep_alive' => false,
]);
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
